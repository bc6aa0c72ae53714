"""Command line of skvae: fit ConvVAE on images, or find the odd ones among them."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import type_of_target

from skvae import (
    ConvVAE,
    ConvVAEOutlierDetector,
    OutlierDisplay,
    ReconstructionDisplay,
    SampleDisplay,
    __version__,
)
from skvae.advice import first_parameters
from skvae.data.layout import infer_layout, parse_input_shape
from skvae.displays.common import check_matplotlib
from skvae.exceptions import naming

# PCA.score inverts a matrix of n_pixels x n_pixels. For larger images it takes minutes.
_MAX_PIXELS_FOR_PCA_SCORE = 4096

# Exit status after Ctrl-C, as of other programs.
_INTERRUPTED = 130

# Number of images of each kind in the picture.
_N_SHOWN = 12


class _Images(NamedTuple):
    name: str
    X: np.ndarray
    y: np.ndarray | None
    paths: list[Path] | None = None


def main(arguments: list[str] | None = None) -> None:
    """Fit ConvVAE, compare it with PCA and save the model and a picture.

    With --outliers, find the oddest images instead.

    Parameters
    ----------
    arguments : list of str or None
        Command line arguments. None reads them from `sys.argv`.
    """
    options = _parse(arguments)
    is_detector = options.outliers is not None
    try:
        _check_writable(options.model, options.picture)
        _check_matplotlib(options.picture)
        images = _load(options.data, tuple(options.size), is_grey=options.grey)
        parts = None if is_detector else _split(images, options.random_state)
        advised = _advised(images.X if parts is None else parts[0], options)
        _start_tensorflow()
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"skvae: {error}")
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    vae = ConvVAE(
        **advised,
        likelihood=options.likelihood,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        input_shape=options.input_shape,
        random_state=options.random_state,
        verbose=1,
    )
    title = f"skvae {__version__}: {images.name}"
    if parts is None:
        print(f"{title}, {len(images.X)} images")
        _find_outliers(vae, images, options)
        return
    train, test, y_train, y_test = parts
    print(f"{title}, {len(train)} images to train on, {len(test)} held out")
    _fit(vae, train, options.model)
    _print_comparison(vae, train, test, y_train, y_test)
    _save_picture(vae, test, options.picture)
    print(f"picture  {options.picture}  (originals, the same decoded, samples)")
    _print_model(vae, options.model)


def _advised(X: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """Parameters to try first for these images, unless an option sets them."""
    given = vars(options)
    input_shape = options.input_shape
    shape = None if input_shape is None else parse_input_shape(input_shape)
    with naming("X"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `fit` warns of the same
        layout = infer_layout(X.shape, shape)
    advised: dict[str, Any] = first_parameters(layout.image_shape, len(X))
    return advised | {name: given[name] for name in advised.keys() & given.keys()}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m skvae",
        description="Fit a convolutional variational autoencoder on images, compare "
        "it with PCA on held-out images, and save a picture and the fitted model. Or "
        "find the oddest images.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "data",
        nargs="?",
        type=Path,
        help=".npy file of images (n, H, W), (n, H, W, C) or rows of pixels; .npz file "
        "with images as its only array or as X, and optional labels as y; or folder "
        "of pictures. Without it, scikit-learn's digits are used",
    )
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("skvae.joblib"),
        help="output file for the fitted model",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        default=Path("skvae.png"),
        help="output file for the picture",
    )
    parser.add_argument(
        "--outliers",
        type=_contamination,
        metavar="CONTAMINATION",
        help=f"name the {_N_SHOWN} oddest images, and show them in the picture. The "
        "model is a detector. Of new images of the same kind it finds this part, 0.05 "
        "for instance, and of the images given a smaller one",
    )
    parser.add_argument(
        "--input-shape",
        type=int,
        nargs="+",
        metavar="N",
        help="height, width and, optionally, channels of an image, for rows of pixels",
    )
    parser.add_argument(
        "--size",
        type=_positive,
        nargs=2,
        metavar=("HEIGHT", "WIDTH"),
        default=(64, 64),
        help="size to which the pictures in a folder are resized",
    )
    parser.add_argument(
        "--grey", action="store_true", help="convert the pictures in a folder to grey"
    )
    # Options that are not given are chosen for the images.
    parser.add_argument(
        "--latent-dim",
        type=int,
        default=argparse.SUPPRESS,
        help="number of latent dimensions (default: 8, 16 or 32, by the image size)",
    )
    parser.add_argument(
        "--filters",
        type=int,
        default=argparse.SUPPRESS,
        help="filters of the first convolution (default: 32 for up to 16 x 16 pixels, "
        "else 16)",
    )
    parser.add_argument(
        "--hidden-layers",
        type=int,
        default=argparse.SUPPRESS,
        help="number of convolutions in the encoder, and in the decoder (default: 2, 3 "
        "or 4, by the image size)",
    )
    parser.add_argument(
        "--likelihood",
        choices=["gaussian", "mse", "bernoulli"],
        default="gaussian",
        help="distribution of a pixel given its decoded mean",
    )
    parser.add_argument("--epochs", type=int, default=100, help="passes over the data")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=argparse.SUPPRESS,
        help="images per training step (default: 64, or 16 for fewer than 300)",
    )
    parser.add_argument(
        "--learning-rate", type=float, default=1e-3, help="step size of the optimizer"
    )
    parser.add_argument("--random-state", type=int, default=0, help="seed")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = f"{text!r} is not a positive integer"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _contamination(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 0.5:
        msg = f"{text!r} is not a number above 0 and at most 0.5"
        raise argparse.ArgumentTypeError(msg)
    return value


def _load(path: Path | None, size: tuple[int, int], *, is_grey: bool) -> _Images:
    if path is None:
        digits = load_digits()
        return _Images("scikit-learn's digits", digits.images / 16, digits.target)
    return (
        _load_folder(path, size, is_grey=is_grey) if path.is_dir() else _load_file(path)
    )


def _load_folder(folder: Path, size: tuple[int, int], *, is_grey: bool) -> _Images:
    try:
        from skvae.data.pictures import (  # noqa: PLC0415  optional dependency
            picture_paths,
            read_pictures,
        )
    except ImportError as error:
        msg = "reading pictures needs Pillow: pip install pillow"
        raise ImportError(msg) from error
    images, left_out = read_pictures(folder, size, is_grey=is_grey)
    for file, reason in left_out.items():
        print(f"skvae: skipped {file}: {reason}", file=sys.stderr)
    height, width = size
    kind = "grey" if is_grey else "colour"
    name = f"{folder}, {kind}, {height} x {width} pixels"
    paths = [path for path in picture_paths(folder) if path not in left_out]
    return _Images(name, images, None, paths)


def _load_file(path: Path) -> _Images:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        msg = (
            f"{path} is not a .npy or .npz file of numbers. For pictures, give their "
            f"folder."
        )
        raise ValueError(msg) from error
    if isinstance(loaded, np.ndarray):
        return _Images(str(path), loaded, None)
    with loaded as arrays:
        names = set(arrays.files)
        images = "X" if "X" in names else next(iter(names - {"y"}), "")
        if not images or (images != "X" and len(names - {"y"}) > 1):
            msg = f"{path} has arrays {sorted(names)}: the images must be named X."
            raise ValueError(msg)
        y = arrays["y"] if "y" in names else None
        if y is not None and type_of_target(y) not in ("binary", "multiclass"):
            msg = f"{path}: labels y must be classes."
            raise ValueError(msg)
        return _Images(str(path), arrays[images], y)


def _check_writable(*paths: Path) -> None:
    """Check before training that output files can be written."""
    for path in paths:
        if path.is_dir() or not path.absolute().parent.is_dir():
            msg = f"cannot write {path}: it is a folder, or its folder does not exist"
            raise ValueError(msg)


def _show_warning(message: Warning | str, *_: object) -> None:
    """Print a warning without its line of source code."""
    print(f"skvae: {message}", file=sys.stderr)


def _check_matplotlib(picture: Path) -> None:
    check_matplotlib("the picture")
    import matplotlib as mpl  # noqa: PLC0415  optional dependency

    mpl.use("agg")
    from matplotlib.backend_bases import FigureCanvasBase  # noqa: PLC0415

    if picture.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        msg = (
            f"cannot write {picture}: matplotlib does not support this format, use .png"
        )
        raise ValueError(msg)


def _start_tensorflow() -> None:
    with _muted_stderr():
        from skvae.network.backend import tf  # noqa: PLC0415

        # TensorFlow logs to stderr when it initializes its devices, and when a session
        # first runs.
        tf.zeros(())
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            session.run(tf.zeros(()))


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Suppress what C++ code writes to stderr, unless an exception is raised."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as muted:
        os.dup2(muted.fileno(), 2)
        try:
            yield
        except BaseException:
            muted.seek(0)
            os.write(kept, muted.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _split(
    images: _Images, random_state: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    if images.X.shape[:1] < (3,):  # a single number has no length
        msg = f"at least 3 images are needed, one of them to hold out: {images.name}"
        raise ValueError(msg)
    if images.y is None:
        train, test = train_test_split(images.X, random_state=random_state)
        return train, test, None, None
    return tuple(train_test_split(images.X, images.y, random_state=random_state))


def _fit(
    estimator: ConvVAE | ConvVAEOutlierDetector, X: np.ndarray, path: Path
) -> None:
    """Fit and save the estimator, or exit with a message."""
    try:
        estimator.fit(X)
    except ValueError as error:
        sys.exit(f"skvae: {error}")
    except KeyboardInterrupt as error:
        print(f"skvae: {error}", file=sys.stderr)
        if hasattr(estimator, "weights_"):
            joblib.dump(estimator, path)
            _print_model(estimator, path)
        sys.exit(_INTERRUPTED)
    joblib.dump(estimator, path)


def _find_outliers(vae: ConvVAE, images: _Images, options: argparse.Namespace) -> None:
    """Name the oddest images, and save a picture of them and the detector."""
    detector = ConvVAEOutlierDetector(
        vae, contamination=options.outliers, random_state=options.random_state
    )
    _fit(detector, images.X, options.model)
    scores = detector.score_samples(images.X)
    oddest = np.argsort(scores, kind="stable")[:_N_SHOWN]
    above = scores - detector.offset_
    print(f"{'oddest images':<40} {'score':>10} {'- threshold':>12}")
    for i in oddest:
        name = f"row {i}" if images.paths is None else str(images.paths[i])
        print(f"{name:<40} {scores[i]:>10.2f} {above[i]:>12.2f}")
    n_found = np.count_nonzero(above < 0)
    print(f"below the threshold of {detector.offset_:.2f}: {n_found} images")
    _save_oddest(detector, images.X[oddest], options.picture)
    print(f"picture  {options.picture}  (oddest images, the same decoded, errors)")
    _print_model(detector, options.model)


def _print_comparison(
    vae: ConvVAE,
    train: np.ndarray,
    test: np.ndarray,
    y_train: np.ndarray | None,
    y_test: np.ndarray | None,
) -> None:
    train_rows, test_rows = (rows.reshape(len(rows), -1) for rows in (train, test))
    n_components = min(vae.latent_dim, *train_rows.shape)
    pca = PCA(n_components, random_state=0).fit(train_rows)
    z_vae, z_pca = vae.transform(test), pca.transform(test_rows)
    decoded = vae.inverse_transform(z_vae).reshape(test_rows.shape)
    # The density of PCA needs variance that its components do not explain.
    has_density = pca.noise_variance_ > 1e-12 * pca.explained_variance_[0]
    likelihood_pca = "-"
    if (
        has_density
        and test_rows.shape[1] <= _MAX_PIXELS_FOR_PCA_SCORE
        and vae.likelihood != "bernoulli"
    ):
        likelihood_pca = f"{pca.score(test_rows):.2f}"
    table = [
        ("on held-out images", "ConvVAE", f"PCA({n_components})"),
        ("log-likelihood, nats an image", f"{vae.score(test):.2f}", likelihood_pca),
        (
            "reconstruction, mean squared error",
            f"{np.mean((decoded - test_rows) ** 2):.4g}",
            f"{np.mean((pca.inverse_transform(z_pca) - test_rows) ** 2):.4g}",
        ),
    ]
    if y_train is not None and len(np.unique(y_train)) > 1:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        of_vae, of_pca = (
            classifier.fit(model.transform(rows), y_train).score(z, y_test)
            for model, rows, z in ((vae, train, z_vae), (pca, train_rows, z_pca))
        )
        row = "accuracy of logistic regression on them"
        table.append((row, f"{of_vae:.3f}", f"{of_pca:.3f}"))
    for columns in table:
        print("{:<40} {:>10} {:>10}".format(*columns))


def _print_model(estimator: ConvVAE | ConvVAEOutlierDetector, path: Path) -> None:
    name = type(estimator).__name__
    print(f"model    {path}  (joblib.load gives the fitted {name})")


def _save_picture(vae: ConvVAE, test: np.ndarray, path: Path) -> None:
    """Save a picture of test images above their reconstructions, and of samples."""
    from matplotlib.figure import Figure  # noqa: PLC0415  optional dependency

    n = min(_N_SHOWN, len(test))
    height, width, _ = vae.input_shape_
    figure_height = 0.6 + 3 * np.clip(height / width, 0.25, 2)
    figure = Figure(figsize=(1 + n, figure_height), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=(2, 1))
    ReconstructionDisplay.from_estimator(vae, test[:n], n_samples=n, n_cols=n, ax=upper)
    SampleDisplay.from_estimator(vae, n_samples=n, random_state=0, n_cols=n, ax=lower)
    lower.set_xlabel("sampled")
    figure.savefig(path, dpi=100)


def _save_oddest(
    detector: ConvVAEOutlierDetector, oddest: np.ndarray, path: Path
) -> None:
    """Save a picture of the oddest images."""
    from matplotlib.figure import Figure  # noqa: PLC0415  optional dependency

    n = len(oddest)
    height, width, _ = detector.estimator_.input_shape_
    figure_height = 1 + 3 * np.clip(height / width, 0.25, 2)
    figure = Figure(figsize=(1 + n, figure_height), layout="constrained")
    OutlierDisplay.from_estimator(detector, oddest, n_samples=n, ax=figure.subplots())
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
