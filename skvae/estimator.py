"""ConvVAE, the estimator: parameters, methods and fitted attributes."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    clone,
)
from sklearn.utils import Tags, check_scalar
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_array, check_is_fitted

from skvae.advice import advice
from skvae.architecture import (
    ACTIVATIONS,
    DTYPE_POLICIES,
    LIKELIHOODS,
    MAX_HIDDEN_LAYERS,
    MAX_WEIGHTS,
    NOISE_TYPES,
    OPTIMIZERS,
    Architecture,
)
from skvae.data.arrays import as_array
from skvae.data.layout import ImageLayout, infer_layout, parse_input_shape
from skvae.data.range_warnings import (
    suitable_range,
    warn_of_clipping,
    warn_of_values,
    warn_of_wide_range,
)
from skvae.data.storage import Selection, StoredArray, StoredImages, sample_images
from skvae.data.validation import check_numeric, check_out, read_images
from skvae.data.value_range import (
    auto_value_range,
    check_finite,
    parse_value_range,
)
from skvae.documentation import CLASS_ADDRESS
from skvae.exceptions import PosteriorCollapseWarning, naming, warn_user
from skvae.parameters import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    HasMethods,
    Interval,
    StrOptions,
    validates_parameters,
)
from skvae.persistence import state as saved
from skvae.serving.sampler import draw_latents
from skvae.streams import Stream, draw_seed, stream
from skvae.training.callbacks import CallbackSupportMixin, FitTasks
from skvae.training.collapse import collapse_message
from skvae.training.interruption import deferred_interrupt
from skvae.training.plan import Plan, Settings, TrainingData, TrainingState

if TYPE_CHECKING:
    from skvae.network import KerasModels
    from skvae.serving.export import OnnxModels
    from skvae.serving.sessions import FittedNetwork

Images: TypeAlias = ArrayLike | StoredArray

# numpy and TensorFlow count in 64 and 32 bits.
_MAX_COUNT = 2**31 - 1

_Method = TypeVar("_Method", bound=Callable[..., Any])


class _Fitted(NamedTuple):
    """Snapshot of the fitted attributes, which a fit in another thread may replace."""

    architecture: Architecture
    layout: ImageLayout
    weights: dict[str, np.ndarray]
    value_range: tuple[float, float]
    # In the network's units: of all pixels, or of each pixel (n_pixels,).
    noise_variance: float | np.ndarray
    seed: int
    sampler: BaseEstimator | None
    attributes: dict[str, Any]  # all of them

    @property
    def network(self) -> FittedNetwork:
        """The network, compiled once for these weights."""
        from skvae.serving.sessions import fitted_network

        return fitted_network(
            self.architecture, self.weights, self.value_range, self.seed
        )

    @property
    def training_state(self) -> TrainingState:
        """State from which training can go on."""
        private = self.attributes["_state_"]
        weights = self.architecture.pack(self.weights)
        # The user may have replaced weights, to go on from those.
        is_replaced = saved.weights_checksum(weights) != private["weights_checksum"]
        return TrainingState(
            seed=self.seed,
            n_epochs=self.attributes["n_iter_"],
            n_steps=private["n_steps"],
            weights=weights,
            last_weights=weights if is_replaced else private["last_weights"],
            noise_variance=private["noise_variance"],
            optimizer_arrays=private["optimizer_arrays"],
        )

    @property
    def split_sizes(self) -> tuple[int, ...]:
        """Numbers of images for which the validation set was taken from X."""
        # Not in files of earlier versions.
        sizes: tuple[int, ...] = self.attributes["_state_"].get("split_sizes", ())
        return sizes


def _can_fit_partially(estimator: ConvVAE) -> bool:
    if estimator.early_stopping:
        msg = (
            "partial_fit is not available with early_stopping=True, which compares the "
            "epochs of one fit. Set early_stopping=False, or call fit."
        )
        raise AttributeError(msg)
    return True


# scikit-learn's decorators have no types; they leave those of a method as they are.
_without_early_stopping: Callable[[_Method], _Method] = available_if(_can_fit_partially)


class ConvVAE(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Convolutional variational autoencoder.

    Compresses images to a few latent features and decodes them. The model is a
    density of images: latents z are standard normal, and pixels given z are
    independent with the decoder's output as their mean. The encoder returns the
    approximate posterior of z. Both are trained on the evidence lower bound [1]_.

    Each convolution of the encoder halves the image and doubles the number of filters.
    The decoder reverses this with transposed convolutions.

    Parameters
    ----------
    latent_dim : int, default=4
        Number of latent features.
    filters : int, default=8
        Number of filters of the encoder's first convolution. It doubles with each
        further convolution.
    hidden_layers : int, default=4
        Number of convolutions in the encoder, and in the decoder. At most 30.
    kernel_size : int, default=3
        Height and width of the kernels, in pixels.
    input_shape : (H, W) or (H, W, C), default=None
        Shape of one image, for X given as rows of pixels. If None, a square number of
        columns is a square grey image, and any other number n a strip of 1 x n pixels.
    last_activation : {"sigmoid", "linear"}, default="sigmoid"
        Activation of the decoder's output. "sigmoid" keeps decoded images within the
        value range.
    likelihood : {"gaussian", "mse", "bernoulli"}, default="gaussian"
        Distribution of a pixel around its decoded mean. "gaussian" learns the noise
        variance [2]_. "mse" uses the loss "sum of squared errors + KL",
        which is a Gaussian of variance 1/2 in units of the value range; most images
        then use few latent features. "bernoulli" is for pixels between 0 and 1 and
        requires the sigmoid; values outside of the value range are clipped.
    noise_type : {"spherical", "diag"}, default="spherical"
        Noise variance of "gaussian": "spherical" is one for all pixels, "diag" one for
        each pixel, which gives images with pixels that hardly vary a higher
        likelihood. Both train with one variance s. After training, "diag" measures the
        mean squared error m of each pixel over the n training images, at one draw from
        the posterior of each, and takes max(s (n m / mean(m) + 4) / (n + 4), 1e-4), in
        units of the squared width of the value range. Other likelihoods require
        "spherical".
    beta : float, default=1.0
        Weight of the KL in the training loss [3]_. Not used in scores.
    kl_warmup_epochs : int, default=0
        Number of epochs in which the weight of the KL rises linearly from 0 to `beta`
        [4]_. Early stopping begins after them.
    free_bits : float, default=0.0
        Nats of each latent feature's KL, in the mean over a batch, that the training
        loss does not penalise [5]_.
    epochs : int, default=100
        Number of passes over the training data in `fit`.
    batch_size : int, default=64
        Number of images per training step.
    learning_rate : float, default=1e-3
        Step size of the optimizer.
    optimizer : {"adagrad", "adam", "adamax", "adamw", "lion", "nadam", "rmsprop", \
            "sgd"}, default="adam"
        Keras optimizer, with its default settings. The gradient of the loss in nats
        per pixel is clipped to a global norm of 10.
    early_stopping : bool, default=False
        Whether to stop training when the validation loss does not improve. The weights
        with the lowest validation loss are restored. With at least 30 validation
        images, "gaussian" uses their noise variance of the last epoch in the training
        loss where it is above the training images' own. That one falls as the network
        overfits, and the weight of the KL with it.
    validation_fraction : float, default=0.1
        Proportion of training data to set aside as validation set. Only used if
        `early_stopping=True` and `X_val` is None.
    n_iter_no_change : int, default=10
        Maximum number of epochs to not meet `tol` improvement. Epochs that end within
        the first 100 training steps do not count. Only used if `early_stopping=True`.
    tol : float, default=1e-4
        Minimum improvement of the validation loss, in nats. Only used if
        `early_stopping=True`.
    value_range : (float, float) or "auto", default="auto"
        Interval of pixel values that is scaled to [0, 1] for the network. "auto" is
        0 to 255 for uint8, and 0 to 1 for bool and for floats within it, unless the
        training data fill less than a quarter of it; otherwise their minimum and
        maximum.
    sampler : density estimator, default=None
        Estimator with `fit` and `sample`, such as GaussianMixture or KernelDensity,
        from which `sample` draws latents. It is cloned and fitted on one draw from the
        posterior of each training image [6]_. Its `sample` takes a `random_state`, or
        it has a parameter of that name. If None, latents are drawn from their prior.
        Not used in scores.
    dtype_policy : {"float32", "mixed_bfloat16", "mixed_float16"}, default="float32"
        Dtype policy of the layers in training. The mixed policies compute in 16 bits,
        which is faster on hardware that supports it (bfloat16: AVX-512 BF16, AMX;
        float16: GPUs). Where the device would also add up in 16 bits, which makes
        gradients wrong, layers compute in float32: see `compute_dtype_`. Weights,
        losses and everything that a fitted estimator computes are float32. float16
        has a smaller range and uses Keras's LossScaleOptimizer, which does not support
        "nadam".
    warm_start : bool, default=False
        If True, `fit` trains `epochs` more epochs from the state of the previous fit.
        With `early_stopping`, images appended to X extend its validation set. If other
        images or another `validation_fraction` are given, or the earlier fit was
        without `early_stopping`, images trained on before may be held out: give a
        validation set as `X_val`.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the images, the noise in training
        and the draws in scores. None draws a new seed in each `fit`. Global random
        states are neither used nor changed.
    verbose : int, default=0
        0 is silent, 1 shows a progress bar (or some ten lines if the output is not a
        terminal), 2 or more prints a line per epoch. Both first print which parameters
        to try for the size and the number of the images, if all of these have their
        default values.

    Attributes
    ----------
    weights_ : dict of str to ndarray of float32
        Weights of the network under "layer_name/kernel" and "layer_name/bias": a
        moving average of those after each training step.
    history_ : dict of str to list of float
        Mean over the images of each epoch: "loss" = "reconstruction" + beta x "kl"
        (apart from `kl_warmup_epochs` and `free_bits`), and with early stopping
        "val_loss". "reconstruction" is -log p(x | z) in nats and in the units of X; for
        "mse" it is the sum of squared errors in units of the value range. "val_loss"
        is the negative evidence lower bound of the validation set (beta = 1), in nats
        and in the units of X, with the same draws in each epoch and with the noise
        variance that fits the validation set best. It is that of `weights_`; the others
        are those of the weights before each training step.
    n_iter_ : int
        Number of epochs trained in all.
    input_shape_ : (int, int, int)
        Height, width and channels of an image.
    value_range_ : (float, float)
        Interval of pixel values that is scaled to [0, 1] for the network.
    noise_variance_ : float or ndarray of float64
        Variance of a pixel around its decoded mean, in the squared units of X; at least
        1e-6 of the squared width of the value range. With `noise_type="diag"` an array
        of the shape of one image in the layout of X. With early stopping it is that of
        the validation set, which should have some tens of images; without, that of the
        training images in the last steps, before weights are averaged. Absent for
        "bernoulli".
    latent_kl_ : ndarray of shape (latent_dim,), float32
        Mean KL of each latent feature over the training data, in nats. A feature near
        0 is not used.
    compute_dtype_ : str
        Dtype that layers computed in during training. Absent after loading an
        older file with a mixed `dtype_policy`.
    sampler_ : estimator
        The fitted clone of `sampler`. Absent if that is None.
    n_features_in_ : int
        Number of values in one image, H x W x C, in any layout.
    feature_names_in_ : ndarray of str
        Names of the columns, if X has columns named by strings.

    Notes
    -----
    X may be rows of pixels (n, H*W*C), grey images (n, H, W) or images (n, H, W, C),
    of bool, integers or floats. Decoded images and samples come back in the layout
    and the units that `fit` was given, as float32.

    X may also be out-of-core: a memory map, an h5py dataset, a zarr array, or any
    other object with `shape`, numpy's `dtype` and slicing. It is read and validated in
    chunks. Each epoch reads runs of neighbouring images, of 1 MB each, in random order,
    and shuffles the images within 64 MB of such runs. Results are those of the same
    images in memory, unless there are more than 64 MB in chunks of their own of more
    than 256 KB: these are then the runs.

    The same random_state, data and parameters give the same bits on the same number
    of threads; on another number, training differs by rounding. The results of a
    fitted estimator for an image have the same bits alone, among others and in any
    order, on any number of threads and in any process of a machine.

    Keras on TensorFlow trains; ONNX Runtime and numpy compute everything else. Fitted
    arrays are read-only; to change weights, replace them in `weights_`.

    `weights_` are an exponential moving average of the weights after each training
    step, with a momentum of 0.98, or less in the first steps [7]_. They vary less from
    step to step, and fit other images better. `partial_fit` and `warm_start` go on from
    the weights of the last step, which are kept too. With early stopping, both are
    those of the best epoch. If you replace any of `weights_`, training goes on from
    `weights_`.

    `fit` trains on the device of the ``tf.device`` scope that it is called in. In the
    scope of a ``tf.distribute.MirroredStrategy`` it shares each batch among the devices
    of a machine, and in that of a ``MultiWorkerMirroredStrategy`` among those of
    several machines, each of which calls it with the same arguments and an integer
    random_state. The results are those of one device, up to rounding.

    References
    ----------
    .. [1] Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014,
       https://arxiv.org/abs/1312.6114
    .. [2] Rybkin, Daniilidis and Levine, "Simple and Effective VAE Training with
       Calibrated Decoders", ICML 2021, https://arxiv.org/abs/2006.13202
    .. [3] Higgins et al., "beta-VAE: Learning Basic Visual Concepts with a
       Constrained Variational Framework", ICLR 2017
    .. [4] Bowman et al., "Generating Sentences from a Continuous Space", CoNLL 2016,
       https://arxiv.org/abs/1511.06349
    .. [5] Kingma et al., "Improved Variational Inference with Inverse Autoregressive
       Flow", NeurIPS 2016, https://arxiv.org/abs/1606.04934
    .. [6] Ghosh et al., "From Variational to Deterministic Autoencoders", ICLR 2020,
       https://arxiv.org/abs/1903.12436
    .. [7] Polyak and Juditsky, "Acceleration of Stochastic Approximation by
       Averaging", SIAM Journal on Control and Optimization 30 (4), 1992,
       https://doi.org/10.1137/0330046

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import ConvVAE
    >>> images = load_digits().images  # (1797, 8, 8)
    >>> vae = ConvVAE(latent_dim=8, hidden_layers=2, epochs=2, random_state=0)
    >>> features = vae.fit_transform(images)
    >>> features.shape
    (1797, 8)
    >>> vae.inverse_transform(features).shape
    (1797, 8, 8)
    >>> vae.sample(5, random_state=0).shape
    (5, 8, 8)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "latent_dim": [COUNT],
        "filters": [COUNT],
        "hidden_layers": [Interval(Integral, 1, MAX_HIDDEN_LAYERS, closed="both")],
        "kernel_size": [COUNT],
        "input_shape": [tuple, list, None],
        "last_activation": [StrOptions(set(ACTIVATIONS))],
        "likelihood": [StrOptions(set(LIKELIHOODS))],
        "noise_type": [StrOptions(set(NOISE_TYPES))],
        "beta": [NOT_NEGATIVE],
        "kl_warmup_epochs": [Interval(Integral, 0, None, closed="left")],
        "free_bits": [NOT_NEGATIVE],
        "epochs": [COUNT],
        "batch_size": [COUNT],
        "learning_rate": [POSITIVE],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [COUNT],
        "tol": [NOT_NEGATIVE],
        "value_range": [StrOptions({"auto"}), tuple, list],
        "sampler": [HasMethods(["fit", "sample", "get_params", "set_params"]), None],
        "dtype_policy": [StrOptions(set(DTYPE_POLICIES))],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    # scikit-learn's view of an estimator links there.
    _doc_link_module = "skvae"
    _doc_link_template = CLASS_ADDRESS

    # Fitted attributes.
    weights_: dict[str, NDArray[np.float32]]
    history_: dict[str, list[float]]
    n_iter_: int
    input_shape_: tuple[int, int, int]
    value_range_: tuple[float, float]
    noise_variance_: float | NDArray[np.float64]
    latent_kl_: NDArray[np.float32]
    compute_dtype_: str
    sampler_: BaseEstimator
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    # Methods of scikit-learn's classes, which have no types.
    fit_transform: Callable[..., NDArray[np.float32]]
    get_feature_names_out: Callable[..., NDArray[np.object_]]
    get_params: Callable[..., dict[str, Any]]
    set_callbacks: Callable[..., Self]
    set_output: Callable[..., Self]
    set_params: Callable[..., Self]

    def __init__(
        self,
        latent_dim: int = 4,
        *,
        filters: int = 8,
        hidden_layers: int = 4,
        kernel_size: int = 3,
        input_shape: tuple[int, ...] | None = None,
        last_activation: str = "sigmoid",
        likelihood: str = "gaussian",
        noise_type: str = "spherical",
        beta: float = 1.0,
        kl_warmup_epochs: int = 0,
        free_bits: float = 0.0,
        epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        optimizer: str = "adam",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        value_range: tuple[float, float] | str = "auto",
        sampler: BaseEstimator | None = None,
        dtype_policy: str = "float32",
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.latent_dim = latent_dim
        self.filters = filters
        self.hidden_layers = hidden_layers
        self.kernel_size = kernel_size
        self.input_shape = input_shape
        self.last_activation = last_activation
        self.likelihood = likelihood
        self.noise_type = noise_type
        self.beta = beta
        self.kl_warmup_epochs = kl_warmup_epochs
        self.free_bits = free_bits
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.value_range = value_range
        self.sampler = sampler
        self.dtype_policy = dtype_policy
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @validates_parameters
    def fit(self, X: Images, y: object = None, X_val: Images | None = None) -> Self:
        """Fit the model to images.

        Parameters
        ----------
        X : array-like of shape (n, H*W*C), (n, H, W) or (n, H, W, C)
            Training images; see Notes of the class.
        y : ignored
        X_val : array-like in the layout of X, default=None
            Validation set of early stopping, in place of a part of X.

        Returns
        -------
        self : ConvVAE

        Raises
        ------
        ValueError, TypeError
            If a parameter is invalid, if X is not finite, numeric and dense, if its
            shape contradicts `input_shape` or, with `warm_start`, the previous fit, or
            if training diverges. The estimator does not change, neither does it after
            an error of a callback. After an error of the sampler it is fitted, but has
            no `sampler_`.
        RuntimeError
            If another worker of a distribution strategy is lost, if the strategy is not
            supported, or in a process that was forked after TensorFlow had started.
        ImportError
            If TensorFlow or Keras is not installed, or if the environment variable
            KERAS_BACKEND is not "tensorflow".
        KeyboardInterrupt
            After Ctrl-C. The first one stops training, once the call of TensorFlow, the
            callback or the fit of the sampler under way has returned: the estimator is
            fitted with the epochs so far, of which the last may be partial, and
            `latent_kl_`, `sampler_` and a `noise_variance_` of each pixel are those of
            some images. After a second one, which waits for a call of TensorFlow and
            for a read of stored images alone, the estimator does not change; neither
            does it after one Ctrl-C before the first step. In the scope of a
            distribution strategy both wait for the same.

        Warns
        -----
        skvae.exceptions.PosteriorCollapseWarning
            If no more than a quarter of the latent features are used. The estimator is
            fitted, also if warnings are errors.
        """
        is_continued = self.warm_start and hasattr(self, "weights_")
        data = self._fit(
            X,
            y,
            X_val,
            self.epochs,
            is_continued=is_continued,
            is_advised=not is_continued,
        )
        self._warn_of_collapse(data.suitable_range)
        return self

    @_without_early_stopping
    @validates_parameters
    def partial_fit(self, X: Images, y: object = None) -> Self:
        """Train one more epoch, on X.

        The first call fixes the layout and the value range, and the decoder starts at
        the mean of its images. k calls with the same X give the same bits as `fit` with
        ``epochs=k``, but no `PosteriorCollapseWarning`. `latent_kl_`, `sampler_` and a
        `noise_variance_` of each pixel describe the images of the last call.

        Parameters
        ----------
        X : array-like of shape (n, H*W*C), (n, H, W) or (n, H, W, C)
            Training images; see Notes of the class.
        y : ignored

        Returns
        -------
        self : ConvVAE

        Raises
        ------
        ValueError, TypeError, RuntimeError, ImportError, KeyboardInterrupt
            As `fit`.
        AttributeError
            If `early_stopping` is set: it compares the epochs of one `fit`.
        """
        is_continued = hasattr(self, "weights_")
        self._fit(X, y, None, 1, is_continued=is_continued, is_advised=False)
        return self

    def transform(self, X: Images, out: Any = None) -> NDArray[np.float32]:
        """Encode images.

        Parameters
        ----------
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given.
        out : array-like of shape (n, latent_dim), default=None
            Array for the result, for results larger than memory: a memory map, an h5py
            dataset, or any other object with `shape`, `dtype` and assignment to
            slices. After an error it may hold a part of the result. With `set_output`,
            the returned container is in memory.

        Returns
        -------
        z_mean : ndarray of shape (n, latent_dim), float32, or `out`
            Means of the latents' posterior.

        Raises
        ------
        ValueError, TypeError
            If X is not finite, numeric and dense, or has another shape than in `fit`;
            if `out` has another shape than the result, neither float32 nor float64, is
            read-only or shares memory with X.
        """
        fitted = self._fitted()
        images = self._read_images(X, fitted)
        check_out(out, (len(images), fitted.architecture.latent_dim), X)
        return fitted.network.encode_to_mean(images, out)

    def posterior(self, X: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Encode images to the distribution of their latents.

        Parameters
        ----------
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given.

        Returns
        -------
        z_mean : ndarray of shape (n, latent_dim), float32
            Means of the approximate posterior, a normal distribution.
        z_log_var : ndarray of shape (n, latent_dim), float32
            Logarithms of its variances, kept within -30 and 30.

        Raises
        ------
        ValueError, TypeError
            As `transform`.
        """
        fitted = self._fitted()
        return fitted.network.encode(self._read_images(X, fitted))

    def inverse_transform(self, Z: ArrayLike, out: Any = None) -> NDArray[np.float32]:
        """Decode latents.

        Parameters
        ----------
        Z : array-like of shape (n, latent_dim)
            Latents, as `transform` gives.
        out : array-like in the layout that `fit` was given, default=None
            Array for the result, as in `transform`.

        Returns
        -------
        X : ndarray of float32, in the layout that `fit` was given, or `out`
            Means of the pixels, in the units that `fit` was given.

        Raises
        ------
        ValueError, TypeError
            If Z is not finite, numeric and dense, or has another number of columns; if
            `out` is refused as in `transform`.
        """
        fitted = self._fitted()
        with naming("Z"):
            latents = check_array(
                as_array(Z, "Z"), input_name="Z", ensure_all_finite=False
            )
            check_numeric(latents.dtype, "Z")
            latents = check_array(
                latents, dtype=np.float32, input_name="Z", estimator=self
            )
        latent_dim = fitted.architecture.latent_dim
        if latents.shape[1] != latent_dim:
            msg = (
                f"Z has {latents.shape[1]} columns, but ConvVAE was fitted with "
                f"latent_dim={latent_dim}. Give latents as transform returns them."
            )
            raise ValueError(msg)
        caller_shape = fitted.layout.caller_shape
        check_out(out, (len(latents), *caller_shape), Z)
        return fitted.network.decode(latents, caller_shape, out)

    def sample(
        self,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> NDArray[np.float32]:
        """Decode latents drawn from `sampler_` or, without one, from their prior.

        Parameters
        ----------
        n_samples : int, default=1
            Number of images.
        random_state : int, RandomState instance or None, default=None
            Seed of the drawn latents, in place of the sampler's own. None takes the
            estimator's `random_state`: if that is an integer, each call gives the
            same images.

        Returns
        -------
        X : ndarray of float32, in the layout that `fit` was given
            Means of the pixels, in the units that `fit` was given, without pixel
            noise.

        Raises
        ------
        ValueError
            If `n_samples` is less than 1, or if the sampler draws no finite latents.
        """
        fitted = self._fitted()
        n_samples = _checked_count("n_samples", n_samples)
        seed = draw_seed(self.random_state if random_state is None else random_state)
        rng = stream(seed, Stream.SAMPLES)
        latent_dim = fitted.architecture.latent_dim
        if fitted.sampler is None:
            z = rng.standard_normal((n_samples, latent_dim), dtype=np.float32)
        else:
            z = draw_latents(fitted.sampler, n_samples, latent_dim, rng)
        return fitted.network.decode(z, fitted.layout.caller_shape)

    def score_samples(self, X: Images, n_draws: int = 64) -> NDArray[np.float64]:
        """Estimate the log-likelihood of each image.

        The importance-weighted estimate of log p(x) [1]_: its expectation is a lower
        bound that rises with `n_draws`, and one draw estimates the evidence lower
        bound. The draws depend on the fitted seed and the image alone, so that an
        image's score is the same in any call, position and company.

        Parameters
        ----------
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given.
        n_draws : int, default=64
            Latents drawn for each image.

        Returns
        -------
        log_likelihood : ndarray of shape (n,), float64
            In nats. For "gaussian" and "mse" the logarithm of a density of the pixels
            in the units that `fit` was given, which compares between models; for
            "bernoulli" it compares with other such scores only.

        Raises
        ------
        ValueError, TypeError
            As `transform`, or if `n_draws` is less than 1.

        References
        ----------
        .. [1] Burda, Grosse and Salakhutdinov, "Importance Weighted Autoencoders",
           ICLR 2016, https://arxiv.org/abs/1509.00519
        """
        from skvae.serving.scores import log_likelihoods

        fitted = self._fitted()
        n_draws = _checked_count("n_draws", n_draws)
        images = self._read_images(X, fitted)
        return log_likelihoods(fitted.network, images, fitted.noise_variance, n_draws)

    def score(self, X: Images, y: object = None) -> float:
        """Mean of `score_samples`: what model selection maximises.

        Parameters
        ----------
        X : array-like of shape (n, H*W*C) or in the layout that `fit` was given
            Images in the units that `fit` was given.
        y : ignored

        Returns
        -------
        log_likelihood : float
            In nats an image, under the standard normal prior.

        Raises
        ------
        ValueError, TypeError
            As `transform`.
        """
        return float(np.mean(self.score_samples(X)))

    def to_keras(self) -> KerasModels:
        """Make Keras models with the fitted weights.

        They are independent of the estimator, and take and give float32 images
        (n, H, W, C) in units of the value range. To load a saved one, import
        `skvae.network` before ``keras.saving.load_model``.

        Returns
        -------
        models : object with three `keras.Model`
            `encoder` gives z_mean, z_log_var and a z drawn with them; `decoder` gives
            the means of the pixels; `vae` encodes, draws and decodes.
        """
        fitted = self._fitted()
        from skvae.network.models import build_models
        from skvae.training.processes import check_process

        check_process()
        return build_models(fitted.architecture, fitted.weights, fitted.seed)

    def to_onnx(self) -> OnnxModels:
        """Make ONNX models with the fitted weights, for serving without skvae.

        They take and give float32 images (n, H, W, C) in the units that `fit` was
        given, whatever the layout of X.

        Returns
        -------
        models : object with two `onnx.ModelProto`
            `encoder` takes "images" and gives "z_mean", as `transform` does, and
            "z_log_var"; `decoder` takes "z" and gives "images", as `inverse_transform`
            does.

        Raises
        ------
        ValueError
            If the network is larger than the 2 GB that a model may have.
        """
        from skvae.serving.export import onnx_models

        fitted = self._fitted()
        return onnx_models(fitted.architecture, fitted.weights, fitted.value_range)

    @property
    def _n_features_out(self) -> int:
        """Number of columns of `transform`, for `get_feature_names_out`."""
        return int(self._state_["architecture"]["latent_dim"])

    def __getstate__(self) -> dict[str, Any]:
        return saved.with_format(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        kinds = {Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD}
        parameters = signature(type(self)).parameters.values()
        names = {each.name for each in parameters if each.kind not in kinds}
        super().__setstate__(saved.checked(state, names, ConvVAE))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _fit(
        self,
        X: Any,
        y: Any,
        X_val: Any,
        epochs: int,
        *,
        is_continued: bool,
        is_advised: bool,
    ) -> TrainingData:
        """Read the images, fix the architecture, train and take the result."""
        # scikit-learn leaves it out in the later calls of partial_fit.
        self._validate_params()
        self._check_combinations(X_val)
        earlier = self._fitted() if is_continued else None
        seed = earlier.seed if earlier else draw_seed(self.random_state)
        with naming("X"):
            X = as_array(X)

        data = self._read_training_data(X, X_val, seed, earlier)
        architecture = self._fix_architecture(data.layout, earlier)
        if is_advised and self.verbose:
            self._print_advice(data)
        plan = Plan(
            architecture=architecture,
            settings=self._settings(epochs, len(data.rows)),
            data=data,
            seed=seed,
            start=earlier.training_state if earlier else None,
            earlier_history=earlier.attributes["history_"] if earlier else {},
            sampler=self._new_sampler(),
        )
        tasks = FitTasks(self, epochs, X, y, saved.OPTIONAL)
        with deferred_interrupt() as interruption:
            from skvae.training.fit import fit  # TensorFlow

            fitted, sampler_error = fit(plan, tasks, int(self.verbose), interruption)
            interruption.close()
            self._take(fitted)
            if sampler_error is not None:
                sampler_error.add_note(
                    "The estimator is fitted, but has no sampler_: sample draws from "
                    "the prior."
                )
                raise sampler_error
        if interruption.is_requested:
            n_epochs = self.n_iter_ - plan.n_epochs_before
            msg = (
                f"Training was interrupted after {n_epochs} of {epochs} epochs, the "
                f"last perhaps in part. The estimator is fitted; partial_fit, or fit "
                f"with warm_start=True, continues."
            )
            raise KeyboardInterrupt(msg)
        return data

    def _check_combinations(self, X_val: Any) -> None:
        """Check parameters that exclude each other."""
        if X_val is not None and not self.early_stopping:
            msg = "X_val requires early_stopping=True."
            raise ValueError(msg)
        if self.likelihood == "bernoulli" and self.last_activation != "sigmoid":
            msg = (
                f"likelihood='bernoulli' requires last_activation='sigmoid', because "
                f"its means are probabilities, got {self.last_activation!r}."
            )
            raise ValueError(msg)
        if self.noise_type == "diag" and self.likelihood != "gaussian":
            msg = (
                f"noise_type='diag' requires likelihood='gaussian', which alone learns "
                f"a noise variance, got likelihood={self.likelihood!r}. Set "
                f"noise_type='spherical', or likelihood='gaussian'."
            )
            raise ValueError(msg)
        if self.optimizer == "nadam" and self.dtype_policy == "mixed_float16":
            # Keras's LossScaleOptimizer leaves one of its variables out.
            msg = (
                "optimizer='nadam' does not support dtype_policy='mixed_float16', "
                "because Keras does not save all of its state. Use optimizer='adam'."
            )
            raise ValueError(msg)
        if isinstance(self.sampler, type):
            name = self.sampler.__name__
            msg = (
                f"sampler must be an estimator, got the class {name}. Write "
                f"sampler={name}()."
            )
            raise TypeError(msg)

    def _read_training_data(
        self, X: Any, X_val: Any, seed: int, earlier: _Fitted | None
    ) -> TrainingData:
        """Validate images and find their layout and value range."""
        # scikit-learn's validation sets attributes: a failed fit must not.
        recorder = self if earlier else ConvVAE()
        layout = self._fit_layout(X.shape, earlier)
        images = read_images(recorder, X, layout, reset=earlier is None)
        value_range = self._given_value_range(earlier)
        suitable = None
        # With a given range, most out-of-core images are first read where they train: a
        # worker of a strategy then tells the others of an error.
        if value_range is None or not isinstance(images, StoredImages):
            sample = sample_images(images)
            check_finite(sample)
            value_range = value_range or auto_value_range(images, sample)
            suitable = suitable_range(sample, value_range)
        if earlier:
            warn_of_values(images, value_range, self.likelihood, "X")
        else:
            if suitable:
                warn_of_wide_range(images, value_range, suitable)
            warn_of_clipping(images, value_range, self.likelihood)
        rows: np.ndarray | range = range(len(images))
        validation_images: np.ndarray | StoredImages | Selection | None = None
        split_sizes: tuple[int, ...] = ()
        if X_val is not None:
            validation_images = read_images(
                recorder, X_val, layout, reset=False, name="X_val"
            )
            warn_of_values(validation_images, value_range, self.likelihood, "X_val")
        elif self.early_stopping:
            from skvae.training.early_stopping import split_rows

            fraction = float(self.validation_fraction)
            sizes = earlier.split_sizes if earlier else ()
            rows, held_out, split_sizes = split_rows(len(images), fraction, seed, sizes)
            validation_images = Selection(images, held_out)
        # scikit-learn may have recorded an integer of numpy's.
        attributes: dict[str, Any] = {"n_features_in_": layout.n_pixels}
        if hasattr(recorder, "feature_names_in_"):
            attributes["feature_names_in_"] = recorder.feature_names_in_
        return TrainingData(
            images=images,
            layout=layout,
            value_range=value_range,
            rows=rows,
            validation_images=validation_images,
            split_sizes=split_sizes,
            suitable_range=suitable,
            feature_attributes=attributes,
        )

    def _print_advice(self, data: TrainingData) -> None:
        parameters = signature(ConvVAE).parameters
        defaults = {name: each.default for name, each in parameters.items()}
        shape = data.layout.image_shape
        sentence = advice(shape, len(data.images), vars(self), defaults)
        if sentence:
            print(f"[ConvVAE] {sentence}", flush=True)

    def _settings(self, epochs: int, n_rows: int) -> Settings:
        return Settings(
            epochs=int(epochs),
            batch_size=min(int(self.batch_size), n_rows),
            learning_rate=float(self.learning_rate),
            beta=float(self.beta),
            kl_warmup_epochs=int(self.kl_warmup_epochs),
            free_bits=float(self.free_bits),
            optimizer=str(self.optimizer),
            noise_type=str(self.noise_type),
            n_iter_no_change=int(self.n_iter_no_change),
            tol=float(self.tol),
        )

    def _new_sampler(self) -> BaseEstimator | None:
        return None if self.sampler is None else clone(self.sampler)

    def _take(self, fitted: dict[str, Any]) -> None:
        """Replace all fitted attributes at once."""
        now = vars(self).copy()  # other threads may set attributes
        kept = {k: v for k, v in now.items() if k not in saved.OPTIONAL}
        self.__dict__ = {**kept, **fitted}

    def _warn_of_collapse(self, suitable: tuple[float, float] | None) -> None:
        message = collapse_message(
            self.latent_kl_, vars(self), self._state_["n_steps"], suitable
        )
        if message:
            warn_user(message, PosteriorCollapseWarning)

    def _fit_layout(
        self, shape: tuple[int, ...], earlier: _Fitted | None
    ) -> ImageLayout:
        """Layout of X, or of the earlier fit."""
        image_shape = None
        if self.input_shape is not None:
            image_shape = parse_input_shape(self.input_shape)
        if earlier is None:
            with naming("X"):
                return infer_layout(shape, image_shape)
        fitted = earlier.layout.image_shape
        if image_shape not in (None, fitted):
            raise ValueError(_changed("input_shape", image_shape, fitted))
        return earlier.layout

    def _given_value_range(self, earlier: _Fitted | None) -> tuple[float, float] | None:
        """Value range of the parameter or of the earlier fit; None for "auto"."""
        value_range = None
        if not isinstance(self.value_range, str):
            value_range = parse_value_range(self.value_range)
        if earlier is None:
            return value_range
        if value_range not in (None, earlier.value_range):
            raise ValueError(_changed("value_range", value_range, earlier.value_range))
        return earlier.value_range

    def _fix_architecture(
        self, layout: ImageLayout, earlier: _Fitted | None
    ) -> Architecture:
        """Architecture of the parameters, which has to be the earlier fit's."""
        choices: dict[str, Any] = {
            "latent_dim": int(self.latent_dim),
            "filters": int(self.filters),
            "hidden_layers": int(self.hidden_layers),
            "kernel_size": int(self.kernel_size),
            "last_activation": str(self.last_activation),
            "likelihood": str(self.likelihood),
            "dtype_policy": str(self.dtype_policy),
        }
        if earlier:
            fitted = {name: getattr(earlier.architecture, name) for name in choices}
            fitted["optimizer"] = earlier.attributes["_state_"]["optimizer"]
            for name, value in {**choices, "optimizer": self.optimizer}.items():
                if value != fitted[name]:
                    raise ValueError(_changed(name, value, fitted[name]))
        architecture = Architecture(layout.image_shape, **choices)
        if architecture.n_weights > MAX_WEIGHTS:
            msg = (
                f"latent_dim={self.latent_dim}, filters={self.filters}, "
                f"hidden_layers={self.hidden_layers} and kernel_size="
                f"{self.kernel_size} make a network of more than {MAX_WEIGHTS:,} "
                f"weights for images of {layout.image_shape}. Lower them."
            )
            raise ValueError(msg)
        return architecture

    def _fitted(self) -> _Fitted:
        check_is_fitted(self, "weights_")
        now = vars(self).copy()
        private, (low, high) = now["_state_"], now["value_range_"]
        noise_variance = private["noise_variance"]
        if now.get("noise_variance_") is not None:
            noise_variance = now["noise_variance_"] / (high - low) ** 2
            if isinstance(noise_variance, np.ndarray):
                noise_variance = noise_variance.ravel()
        return _Fitted(
            architecture=Architecture(**private["architecture"]),
            layout=ImageLayout(now["input_shape_"], private["caller_shape"]),
            weights=now["weights_"],
            value_range=(low, high),
            noise_variance=noise_variance,
            seed=private["seed"],
            sampler=now.get("sampler_"),
            attributes=now,
        )

    def _read_images(self, X: Images, fitted: _Fitted) -> np.ndarray | StoredImages:
        """Validate images (n, H, W, C) in the caller's units."""
        # With the snapshot's feature names, whatever a fit in another thread sets.
        recorder = type(self).__new__(type(self))
        recorder.__dict__ = fitted.attributes
        images = read_images(recorder, X, fitted.layout, reset=False)
        likelihood = fitted.architecture.likelihood
        warn_of_values(images, fitted.value_range, likelihood, "X")
        return images


def _checked_count(name: str, value: Any) -> int:
    return int(check_scalar(value, name, Integral, min_val=1, max_val=_MAX_COUNT))


def _changed(name: str, value: object, earlier: object) -> str:
    return (
        f"{name}={value!r} differs from the {earlier!r} of the earlier fit, which this "
        f"call would continue. Set it back, or fit anew with warm_start=False."
    )
