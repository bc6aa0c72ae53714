"""ConvVAEOutlierDetector, which finds images unlike those it was fitted on."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.utils import Tags, check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from skvae.data.arrays import as_array, take_rows
from skvae.data.storage import StoredRows, check_file, is_stored
from skvae.data.validation import check_out
from skvae.documentation import CLASS_ADDRESS
from skvae.estimator import ConvVAE, Images
from skvae.exceptions import naming, warn_user
from skvae.parameters import Interval, validates_parameters
from skvae.streams import Stream, draw_seed, stream

# Number of pixels that are decoded at a time for error maps.
_CHUNK_VALUES = 2**20


class ConvVAEOutlierDetector(OutlierMixin, BaseEstimator):
    """Outlier detection with a convolutional variational autoencoder.

    `fit` sets a part of the images aside, fits a ConvVAE on the others, and takes the
    `contamination` quantile of the scores of those set aside as threshold. Scores are
    log-likelihoods, and images below the threshold are outliers. The images trained on
    are no measure: a model fits them better than new ones.

    Parameters
    ----------
    estimator : ConvVAE, default=None
        Density model, of which a clone is fitted. If its `random_state` is None, it is
        set from that of the detector. None is ``ConvVAE(early_stopping=True)``.
    contamination : float, default=0.1
        Proportion of images like those fitted that are to be found, in the range
        (0, 0.5]. If the training images have no outliers, this is the rate of false
        alarms. The threshold needs at least 1 / contamination images set aside, and
        some ten times as many to be accurate.
    calibration_fraction : float, default=0.2
        Proportion of training images to set aside for the threshold, in the range
        (0, 1). Their number is rounded down, but at least 1.
    random_state : int, RandomState instance or None, default=None
        Seed of the images set aside, and of the estimator. None draws a new seed in
        each `fit`. Global random states are neither used nor changed.

    Attributes
    ----------
    estimator_ : ConvVAE
        The fitted clone of `estimator`.
    offset_ : float
        Threshold of `score_samples`: ``decision_function = score_samples - offset_``.
    n_features_in_ : int
        Number of values in one image, H x W x C, in any layout.
    feature_names_in_ : ndarray of str
        Names of the columns, if X has columns named by strings.

    See Also
    --------
    ConvVAE : The density model.
    OutlierDisplay : Picture of the oddest images.

    Notes
    -----
    X is as in ConvVAE: rows of pixels, grey images or images with channels, in memory
    or out-of-core. `fit` does not use `y`: it takes all images as examples of what is
    normal. If some of them are not, `contamination` should be no less than their part.

    A likelihood is not proof. It can be high for simple odd images, because dark, flat
    or smooth images are easy to decode [1]_.

    Other detectors of scikit-learn find exactly `contamination` of the images given to
    `fit`. This one does not: those trained on have higher scores than new ones, the
    more so the more the estimator overfits.

    References
    ----------
    .. [1] Nalisnick et al., "Do Deep Generative Models Know What They Don't Know?",
       ICLR 2019, https://arxiv.org/abs/1810.09136

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import ConvVAE, ConvVAEOutlierDetector
    >>> images, labels = load_digits().images, load_digits().target
    >>> vae = ConvVAE(latent_dim=8, filters=32, hidden_layers=2, epochs=20)
    >>> detector = ConvVAEOutlierDetector(vae, random_state=0)
    >>> detector = detector.fit(images[labels != 9])
    >>> is_found = detector.predict(images[labels == 9]) == -1
    >>> bool(is_found.mean() > 0.3)
    True
    >>> detector.error_map(images[:3]).shape
    (3, 8, 8)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [ConvVAE, None],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "calibration_fraction": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
    }

    # scikit-learn's view of an estimator links there.
    _doc_link_module = "skvae"
    _doc_link_template = CLASS_ADDRESS

    # Fitted attributes.
    estimator_: ConvVAE
    offset_: float

    # Methods of scikit-learn's classes, which have no types.
    fit_predict: Callable[..., NDArray[np.int64]]
    get_params: Callable[..., dict[str, Any]]
    set_params: Callable[..., Self]

    def __init__(
        self,
        estimator: ConvVAE | None = None,
        *,
        contamination: float = 0.1,
        calibration_fraction: float = 0.2,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.calibration_fraction = calibration_fraction
        self.random_state = random_state

    @validates_parameters
    def fit(self, X: Images, y: object = None) -> Self:
        """Fit the estimator, and the threshold on images set aside.

        Parameters
        ----------
        X : array-like of shape (n, H*W*C), (n, H, W) or (n, H, W, C)
            Training images, in memory or out-of-core, as in `ConvVAE.fit`.
        y : ignored

        Returns
        -------
        self : ConvVAEOutlierDetector

        Raises
        ------
        ValueError, TypeError
            If a parameter is invalid, if there are too few images to set some of them
            aside, or as in `ConvVAE.fit`. After any error the detector does not change.
        KeyboardInterrupt
            After Ctrl-C. The detector does not change.

        Warns
        -----
        UserWarning
            If fewer than 1 / contamination images are set aside.
        """
        seed = draw_seed(self.random_state)
        with naming("X"):
            images = as_array(X)
            check_consistent_length(images)  # a scalar has no length
            if not is_stored(images):
                # Images set aside are read after training: too late for an error.
                check_array(images, allow_nd=True, input_name="X", estimator=self)
        rows, rows_aside = self._split(images.shape[0], seed)
        estimator = self._new_estimator(seed)
        try:
            estimator.fit(_select(images, rows))
        except KeyboardInterrupt as error:
            msg = "Training was interrupted. The detector has not changed."
            raise KeyboardInterrupt(msg) from error
        scores = estimator.score_samples(_select(images, rows_aside))
        offset = np.quantile(scores, self.contamination)
        self.estimator_, self.offset_ = estimator, float(offset)
        return self

    def score_samples(self, X: Images) -> NDArray[np.float64]:
        """Estimate the log-likelihood of each image.

        Parameters
        ----------
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given.

        Returns
        -------
        scores : ndarray of shape (n,), float64
            `ConvVAE.score_samples`, in nats. The lower, the odder.

        Raises
        ------
        ValueError, TypeError
            As `ConvVAE.transform`.
        """
        check_is_fitted(self)
        return self.estimator_.score_samples(X)

    def decision_function(self, X: Images) -> NDArray[np.float64]:
        """Compute by how much each image's score is above the threshold.

        Parameters
        ----------
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given.

        Returns
        -------
        decision : ndarray of shape (n,), float64
            ``score_samples(X) - offset_``, in nats. Negative for outliers.

        Raises
        ------
        ValueError, TypeError
            As `ConvVAE.transform`.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Images) -> NDArray[np.int64]:
        """Find outliers.

        Parameters
        ----------
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given.

        Returns
        -------
        labels : ndarray of shape (n,), int64
            -1 for outliers, 1 for inliers.

        Raises
        ------
        ValueError, TypeError
            As `ConvVAE.transform`.
        """
        return np.where(self.decision_function(X) < 0, -1, 1).astype(np.int64)

    def error_map(self, X: Images, out: Any = None) -> NDArray[np.float64]:
        """Compute the squared error of each decoded pixel over the noise variance.

        It shows what is odd in an image. For "gaussian", about 1 is usual. For "mse",
        the noise variance is 1/2 in units of the value range. "bernoulli" has none: the
        map is the squared error, in squared units of X.

        Parameters
        ----------
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given.
        out : array-like of the shape of X, default=None
            Array for the result, for results larger than memory, as in
            `ConvVAE.transform`.

        Returns
        -------
        errors : ndarray of float64, of the shape of X, or `out`

        Raises
        ------
        ValueError, TypeError
            As `ConvVAE.transform`.
        """
        check_is_fitted(self)
        vae = self.estimator_
        with naming("X"):
            images = as_array(X)
        check_out(out, images.shape, images)
        Z = np.asarray(vae.transform(images))  # validates them
        errors = np.empty(images.shape) if out is None else out
        noise_variance = getattr(vae, "noise_variance_", 1.0)
        length = max(1, _CHUNK_VALUES // vae.n_features_in_)
        for start in range(0, len(Z), length):
            part = slice(start, start + length)
            decoded = vae.inverse_transform(Z[part])
            check_file(images)
            pixels = np.asarray(take_rows(images, part), np.float64)
            error = (pixels.reshape(decoded.shape) - decoded) ** 2 / noise_variance
            check_file(errors)
            errors[part] = error.reshape(pixels.shape)
        return errors

    @property
    def n_features_in_(self) -> int:
        """Number of values in one image."""
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self) -> NDArray[np.object_]:
        """Names of the columns."""
        return self.estimator_.feature_names_in_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _split(self, n_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on and rows to set aside, both in ascending order."""
        n_aside = max(1, int(self.calibration_fraction * n_images))
        if n_aside >= n_images:
            msg = (
                f"X has too few images to set some aside, got n_samples={n_images}. "
                f"Give at least 2, and some hundred for a threshold that holds."
            )
            raise ValueError(msg)
        # 1 / (1 / 49) is just above 49 in floating point.
        n_needed = math.ceil(round(1 / self.contamination, 6))
        if n_aside < n_needed:
            n_wanted = math.ceil(n_needed / self.calibration_fraction)
            warn_user(
                f"The threshold is about the lowest score of the images set aside, "
                f"which are {n_aside} of {n_images}, fewer than 1 / contamination. "
                f"Give at least {n_wanted} images, or a larger contamination."
            )
        order = stream(seed, Stream.CALIBRATION_SPLIT).permutation(n_images)
        return np.sort(order[n_aside:]), np.sort(order[:n_aside])

    def _new_estimator(self, seed: int) -> ConvVAE:
        if self.estimator is None:
            return ConvVAE(early_stopping=True, random_state=seed)
        estimator = clone(self.estimator)
        if estimator.random_state is None:
            estimator.set_params(random_state=seed)
        return estimator


def _select(X: Any, rows: np.ndarray) -> Any:
    """Rows of X, which are not read yet if X is out-of-core."""
    return StoredRows(X, rows) if is_stored(X) else take_rows(X, rows)
