"""Quality of ConvVAE compared to scikit-learn's models and pythae's VAE.

The datasets are scikit-learn's digits (8 x 8, 1797 images) and scikit-image's subset of
LFW (25 x 25, 100 faces and 100 non-faces). All measures are those of held-out images:

1. log density, in nats per image;
2. mean squared error of reconstructions;
3. accuracy of a logistic regression on the features (ten digits; face or non-face);
4. distance of samples from real images (digits);
5. area under the ROC curve of anomaly scores.

Usage (about 20 minutes on 2 cores):

    pip install -e '.[benchmarks]'
    python benchmarks/quality/quality.py

The script writes quality.csv and quality.png to its folder and prints a table.

Digits have one split and three seeds: deterministic models have a standard deviation
of 0. Faces have four folds, with the number of the fold as seed. Models named "best"
select their hyperparameters by cross-validation on the training images; those of
ConvVAE are fixed per dataset. The scale of its initial weights was selected on these
datasets, which is a small advantage. pythae's VAE has its default loss, with a noise
variance of 1; its BetaVAE has the noise variance of ConvVAE.
"""

from __future__ import annotations

import csv
import math
import warnings
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import pdist
from scipy.special import logsumexp
from skimage.data import lfw_subset
from sklearn.datasets import load_digits
from sklearn.decomposition import NMF, PCA, FactorAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    StratifiedKFold,
    train_test_split,
)
from sklearn.neighbors import KernelDensity
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.common.machine import machine_lines
from benchmarks.common.samples import (
    nearest_neighbour_accuracy,
    ppca_samples,
    prior_samples,
    squared_mmd,
)
from benchmarks.networks.pythae_vae import PythaeVAE
from skvae import ConvVAE

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from collections.abc import Iterator

LATENT_DIMS = (2, 4, 8, 16)
ANOMALY_DIMS = {"digits": 8, "faces": 16}
N_DRAWS = 64

NETWORK = {"filters": 32, "hidden_layers": 2}
TRAINING = {
    "digits": {"epochs": 300, "batch_size": 64, "n_iter_no_change": 10},
    "faces": {"epochs": 1500, "batch_size": 16, "n_iter_no_change": 50},
}
# The validation loss of pythae has new noise in each epoch, so patience is longer.
PYTHAE_TRAINING = {
    "digits": TRAINING["digits"] | {"n_iter_no_change": 20},
    "faces": TRAINING["faces"],
}

# pythae's BetaVAE is the slowest model and is fitted with one number of latents only.
BETA_DIM = 8
SAMPLERS = {"digits": GaussianMixture(10), "faces": None}

# Densities of digits grow without bound as this value decreases, for all models with a
# variance per pixel; see `density_with_pixel_variances`. The minimum of FactorAnalysis
# is 1e-12, which is not a parameter.
SMALLEST_VARIANCE = 1e-4
VARIANCES = [SMALLEST_VARIANCE, 3e-3, 1e-2, 3e-2]
N_COMPONENTS = [2, 4, 8, 16, 24, 32, 40, 48]
MIXTURE_SIZES = {"digits": [10, 30, 60], "faces": [1, 3]}
SPHERICAL_MIXTURE_SIZES = {"digits": [30, 100, 300], "faces": [10, 20, 40]}

# Maps (dataset, measure, model, latent_dim) to one value per repeat.
Results = defaultdict[tuple[str, str, str, int | None], list[float]]


class Repeat(NamedTuple):
    """Training and test images of one fit of all models."""

    seed: int
    train: np.ndarray  # (n, H, W), in [0, 1]
    test: np.ndarray
    train_labels: np.ndarray
    test_labels: np.ndarray


# Data.


def digit_repeats() -> Iterator[Repeat]:
    """Generate repeats on digits: one split, three seeds."""
    digits = load_digits()
    train, test, train_labels, test_labels = train_test_split(
        digits.images / 16, digits.target, random_state=0
    )
    for seed in range(3):
        yield Repeat(seed, train, test, train_labels, test_labels)


def faces_and_others() -> tuple[np.ndarray, np.ndarray]:
    """Load faces and non-faces."""
    images = lfw_subset()
    return images[:100], images[100:]


def face_repeats() -> Iterator[Repeat]:
    """Generate repeats on faces: four folds."""
    faces, _ = faces_and_others()
    labels = np.ones(len(faces))
    folds = KFold(4, shuffle=True, random_state=0).split(faces)
    for fold, (train, test) in enumerate(folds):
        yield Repeat(fold, faces[train], faces[test], labels[train], labels[test])


def face_or_not_repeats() -> Iterator[Repeat]:
    """Generate repeats on labelled faces and non-faces: four folds."""
    images, labels = lfw_subset(), np.repeat([1, 0], 100)
    folds = StratifiedKFold(4, shuffle=True, random_state=0).split(images, labels)
    for fold, (train, test) in enumerate(folds):
        yield Repeat(fold, images[train], images[test], labels[train], labels[test])


def rows(images: np.ndarray) -> np.ndarray:
    """Reshape images to rows of pixels (n, H*W)."""
    return images.reshape(len(images), -1)


# Models.


def fit_conv_vae(dataset: str, latent_dim: int, repeat: Repeat) -> ConvVAE:
    """Fit ConvVAE with the hyperparameters of the dataset."""
    vae = ConvVAE(
        latent_dim,
        **NETWORK,
        **TRAINING[dataset],
        early_stopping=True,
        sampler=SAMPLERS[dataset],
        random_state=repeat.seed,
    )
    return vae.fit(repeat.train)


def fit_pythae(
    dataset: str, latent_dim: int, repeat: Repeat, beta: float = 1.0
) -> PythaeVAE:
    """Fit pythae's VAE, or its BetaVAE, with the same network."""
    vae = PythaeVAE(
        latent_dim,
        **NETWORK,
        **PYTHAE_TRAINING[dataset],
        random_state=repeat.seed,
        beta=beta,
    )
    return vae.fit(repeat.train)


# Densities.


class Draws(NamedTuple):
    """Terms of log p(x) for latents that are drawn from the posteriors of images."""

    squared_errors: np.ndarray  # of decoded pixels: (n_draws, n, n_pixels)
    log_prior_ratios: np.ndarray  # log p(z) - log q(z | x): (n_draws, n)


def draw(vae: Any, images: np.ndarray, seed: int = 0) -> Draws:
    """Draw and decode latents, using only encoder and decoder of the model."""
    z_mean, z_log_var = (part.astype(float) for part in vae.posterior(images))
    generator = np.random.default_rng(seed)
    squared_errors, log_prior_ratios = [], []
    for _ in range(N_DRAWS):
        epsilon = generator.standard_normal(z_mean.shape)
        z = z_mean + np.exp(z_log_var / 2) * epsilon
        decoded = vae.inverse_transform(z).astype(float)
        squared_errors.append(rows((decoded - images) ** 2))
        log_prior_ratios.append(0.5 * (epsilon**2 + z_log_var - z**2).sum(axis=1))
    return Draws(np.array(squared_errors), np.array(log_prior_ratios))


def log_densities(draws: Draws, noise_variance: float | np.ndarray) -> np.ndarray:
    """Compute importance-weighted estimates (n,) of log p(x).

    Burda, Grosse and Salakhutdinov (2016), equation 8. `noise_variance` is a single
    value or has one value per pixel.
    """
    variances = np.broadcast_to(noise_variance, draws.squared_errors.shape[-1])
    log_likelihoods = -0.5 * (
        draws.squared_errors @ (1 / variances) + np.log(2 * math.pi * variances).sum()
    )
    log_weights = log_likelihoods + draws.log_prior_ratios
    return logsumexp(log_weights, axis=0) - math.log(N_DRAWS)


def check_score(vae: ConvVAE, images: np.ndarray) -> None:
    """Compare ConvVAE's scores with `log_densities`, up to random draws."""
    own = log_densities(draw(vae, images), vae.noise_variance_)
    differences = own - vae.score_samples(images, n_draws=N_DRAWS)
    standard_error = differences.std() / math.sqrt(len(images))
    assert abs(differences.mean()) < 5 * standard_error


def density_with_pixel_variances(vae: ConvVAE, repeat: Repeat) -> float:
    """Compute the log density with one noise variance per pixel.

    The variances are those of reconstructions of the training images. Some pixels are 0
    in most digits. There, the density of any model with a variance per pixel depends
    only on the minimum variance.
    """
    residuals = draw(vae, repeat.train).squared_errors.mean(axis=(0, 1))
    variances = np.maximum(residuals, SMALLEST_VARIANCE)
    return log_densities(draw(vae, repeat.test), variances).mean()


def pythae_density(vae: PythaeVAE, images: np.ndarray) -> float:
    """Compute the log density with the best noise variance on validation images.

    pythae's variance of 1 is too large for pixels in [0, 1].
    """
    validation = draw(vae, vae.validation_images_)
    best = minimize_scalar(
        lambda log_variance: -log_densities(validation, math.exp(log_variance)).mean(),
        bounds=(math.log(SMALLEST_VARIANCE), 0),
        method="bounded",
    )
    return log_densities(draw(vae, images), math.exp(best.x)).mean()


def searches(dataset: str, seed: int) -> dict[str, GridSearchCV]:
    """Build grid searches of scikit-learn's density models."""
    mixture = GaussianMixture(random_state=seed)
    grids = {
        "PPCA, best": (PCA(), {"n_components": N_COMPONENTS}),
        "FactorAnalysis, best": (
            FactorAnalysis(random_state=seed),
            {"n_components": N_COMPONENTS},
        ),
        "spherical mixture, best": (
            mixture,
            {
                "covariance_type": ["spherical"],
                "n_components": SPHERICAL_MIXTURE_SIZES[dataset],
                "reg_covar": VARIANCES,
            },
        ),
        "Gaussian mixture, best": (
            mixture,
            {
                "covariance_type": ["spherical", "diag", "tied", "full"],
                "n_components": MIXTURE_SIZES[dataset],
                "reg_covar": VARIANCES,
            },
        ),
        "KernelDensity, best": (
            # With several leaves, its densities are wrong by up to a hundred nats
            # (https://github.com/scikit-learn/scikit-learn/issues/27186).
            KernelDensity(leaf_size=10_000),
            {"bandwidth": np.geomspace(0.05, 0.5, 20)},
        ),
    }
    return {
        name: GridSearchCV(model, grid, cv=5, n_jobs=2)
        for name, (model, grid) in grids.items()
    }


def mean_log_density(model: Any, images: np.ndarray) -> float:
    """Compute the mean log density; `KernelDensity.score` is a sum."""
    return model.score_samples(rows(images)).mean()


def fit_quietly(model: Any, *data: np.ndarray) -> Any:
    """Fit a baseline without convergence warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*data)


# Samples.


def record_samples(
    results: Results,
    model: str,
    latent_dim: int | None,
    samples: np.ndarray,
    test: np.ndarray,
) -> None:
    """Record both measures of samples against the test images of digits."""
    real, samples = rows(test), rows(samples)
    bandwidth = np.median(pdist(real))
    mmd = squared_mmd(samples, real, bandwidth)
    results["digits", "squared MMD", model, latent_dim].append(mmd)
    accuracy = nearest_neighbour_accuracy(samples, real)
    results["digits", "1-NN accuracy", model, latent_dim].append(accuracy)


# The measures.


def searched_baselines(results: Results, dataset: str, repeat: Repeat) -> None:
    """Record cross-validated densities, and samples of a mixture and of real images."""
    fitted = {
        name: fit_quietly(search, rows(repeat.train)).best_estimator_
        for name, search in searches(dataset, repeat.seed).items()
    }
    for name, model in fitted.items():
        density = mean_log_density(model, repeat.test)
        results[dataset, "log density", name, None].append(density)
    if dataset == "digits":
        n = len(repeat.test)
        generator = np.random.default_rng(repeat.seed)
        real = generator.choice(repeat.train, n, replace=False)
        record_samples(results, "real images", None, real, repeat.test)
        mixture = fitted["Gaussian mixture, best"]
        samples = mixture.sample(n)[0]
        record_samples(results, "Gaussian mixture, best", None, samples, repeat.test)


def latent_models(
    results: Results, dataset: str, repeat: Repeat, latent_dim: int
) -> ConvVAE:
    """Record densities, reconstructions and samples for one number of latents."""
    train, test = repeat.train, repeat.test

    def record(measure: str, model: str, value: float) -> None:
        results[dataset, measure, model, latent_dim].append(value)

    def record_reconstruction(name: str, model: Any, images: np.ndarray) -> None:
        decoded = model.inverse_transform(model.transform(images))
        record("reconstruction MSE", name, ((decoded - images) ** 2).mean())

    vae = fit_conv_vae(dataset, latent_dim, repeat)
    check_score(vae, test)
    record("log density", "ConvVAE", vae.score(test))
    record_reconstruction("ConvVAE", vae, test)

    pythae_vaes = {"pythae VAE": fit_pythae(dataset, latent_dim, repeat)}
    if latent_dim == BETA_DIM:
        # The noise variance of ConvVAE, which pythae does not learn.
        beta = vae.noise_variance_
        pythae_vaes["pythae BetaVAE"] = fit_pythae(dataset, latent_dim, repeat, beta)
    n_weights = sum(weight.size for weight in vae.weights_.values())
    for name, pythae_vae in pythae_vaes.items():
        assert pythae_vae.n_weights() == n_weights
        record("log density", name, pythae_density(pythae_vae, test))
        record_reconstruction(name, pythae_vae, test)

    pca = PCA(latent_dim).fit(rows(train))
    record("log density", "PPCA", mean_log_density(pca, test))
    record_reconstruction("PCA", pca, rows(test))
    factor_analysis = fit_quietly(FactorAnalysis(latent_dim), rows(train))
    record("log density", "FactorAnalysis", mean_log_density(factor_analysis, test))

    if dataset == "digits":
        record(
            "log density",
            "ConvVAE, a variance a pixel",
            density_with_pixel_variances(vae, repeat),
        )
        n, seed = len(test), repeat.seed
        samples = {
            "ConvVAE": prior_samples(vae, latent_dim, n, seed),
            "ConvVAE, sampler": vae.sample(n),
            "PPCA": ppca_samples(pca, n, seed),
            **{
                name: prior_samples(pythae_vae, latent_dim, n, seed)
                for name, pythae_vae in pythae_vaes.items()
            },
        }
        for name, images in samples.items():
            record_samples(results, name, latent_dim, images, test)
    return vae


def classification(
    results: Results,
    dataset: str,
    repeat: Repeat,
    latent_dim: int,
    vae: ConvVAE,
) -> None:
    """Record the accuracy of logistic regression for one number of features."""
    train, test = rows(repeat.train), rows(repeat.test)
    transformers = {
        "PCA": PCA(latent_dim),
        "NMF": NMF(latent_dim, max_iter=1000, random_state=repeat.seed),
        "BernoulliRBM": BernoulliRBM(latent_dim, n_iter=100, random_state=repeat.seed),
    }
    features = {"ConvVAE": (vae.transform(repeat.train), vae.transform(repeat.test))}
    for name, transformer in transformers.items():
        fit_quietly(transformer, train)
        features[name] = (transformer.transform(train), transformer.transform(test))
    for name, (train_features, test_features) in features.items():
        accuracy = logistic_accuracy(train_features, test_features, repeat)
        results[dataset, "accuracy", name, latent_dim].append(accuracy)


def logistic_accuracy(train: np.ndarray, test: np.ndarray, repeat: Repeat) -> float:
    """Compute the accuracy of a logistic regression on test features."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return classifier.fit(train, repeat.train_labels).score(test, repeat.test_labels)


def anomalies(
    results: Results,
    dataset: str,
    repeat: Repeat,
    vae: ConvVAE,
    kinds: dict[str, np.ndarray],
) -> None:
    """Record the ROC AUC of kinds of anomalies among normal test images."""
    latent_dim = vae.latent_dim
    pca = PCA(latent_dim).fit(rows(repeat.train))
    forest = IsolationForest(random_state=repeat.seed).fit(rows(repeat.train))

    def pca_error(images: np.ndarray) -> np.ndarray:
        decoded = pca.inverse_transform(pca.transform(rows(images)))
        return ((decoded - rows(images)) ** 2).sum(axis=1)

    # Maps names to latent_dim and a score that is high for anomalies.
    scores = {
        "ConvVAE": (latent_dim, lambda images: -vae.score_samples(images)),
        "PCA error": (latent_dim, pca_error),
        "IsolationForest": (None, lambda images: -forest.score_samples(rows(images))),
    }
    for kind, odd in kinds.items():
        images = np.concatenate([repeat.test, odd])
        is_odd = np.repeat([0, 1], [len(repeat.test), len(odd)])
        for model, (row_dim, score) in scores.items():
            auc = roc_auc_score(is_odd, score(images))
            results[dataset, f"AUC, {kind}", model, row_dim].append(auc)


def digit_anomalies(results: Results, repeat: Repeat) -> None:
    """Train on digits 0 to 8; nines, noise and shuffled digits are anomalies."""
    is_nine = repeat.test_labels == 9
    known = repeat._replace(
        train=repeat.train[repeat.train_labels != 9], test=repeat.test[~is_nine]
    )
    generator = np.random.default_rng(repeat.seed)
    kinds = {
        "nines": repeat.test[is_nine],
        "noise": generator.uniform(size=known.test.shape),
        "shuffled": generator.permuted(rows(known.test), axis=1).reshape(
            known.test.shape
        ),
    }
    vae = fit_conv_vae("digits", ANOMALY_DIMS["digits"], known)
    anomalies(results, "digits", known, vae, kinds)


def compute() -> Results:
    """Compute all measures."""
    # A second thread does not speed up networks of this size.
    torch.set_num_threads(1)
    results: Results = defaultdict(list)
    start = perf_counter()

    def say(what: str) -> None:
        print(f"{perf_counter() - start:5.0f} s  {what}", flush=True)

    for repeat in digit_repeats():
        say(f"digits, seed {repeat.seed}")
        searched_baselines(results, "digits", repeat)
        raw = logistic_accuracy(rows(repeat.train), rows(repeat.test), repeat)
        results["digits", "accuracy", "raw pixels", None].append(raw)
        for latent_dim in LATENT_DIMS:
            vae = latent_models(results, "digits", repeat, latent_dim)
            classification(results, "digits", repeat, latent_dim, vae)
        digit_anomalies(results, repeat)

    _, others = faces_and_others()
    for repeat in face_repeats():
        say(f"faces, fold {repeat.seed}")
        searched_baselines(results, "faces", repeat)
        for latent_dim in LATENT_DIMS:
            vae = latent_models(results, "faces", repeat, latent_dim)
            if latent_dim == ANOMALY_DIMS["faces"]:
                anomalies(results, "faces", repeat, vae, {"non-faces": others})

    for repeat in face_or_not_repeats():
        say(f"faces or not, fold {repeat.seed}")
        raw = logistic_accuracy(rows(repeat.train), rows(repeat.test), repeat)
        results["faces", "accuracy", "raw pixels", None].append(raw)
        for latent_dim in LATENT_DIMS:
            vae = fit_conv_vae("faces", latent_dim, repeat)
            classification(results, "faces", repeat, latent_dim, vae)
    say("done")
    return results


# Results.


def write_csv(results: Results, path: Path) -> None:
    """Write machine and versions, then one line per measure, model and latent_dim."""
    with path.open("w", newline="") as file:
        file.writelines(f"{line}\n" for line in machine_lines())
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            ["dataset", "measure", "model", "latent_dim", "mean", "sd", "n"]
        )
        for key, values in results.items():
            spread = f"{stdev(values):.3g}"
            writer.writerow([*key, f"{mean(values):.6g}", spread, len(values)])


def print_table(results: Results) -> None:
    """Print means, with one line per model and one column per latent_dim or 0."""
    columns = [None, *LATENT_DIMS]
    for dataset, measure in dict.fromkeys(key[:2] for key in results):
        print(f"\n{dataset}, {measure:<28}" + "".join(f"{n or 0:>10}" for n in columns))
        for model in models_of(results, dataset, measure):
            cells = [
                f"{mean(values):10.4g}" if values else " " * 10
                for n in columns
                for values in [results.get((dataset, measure, model, n))]
            ]
            print(f"  {model:<34}" + "".join(cells))


def models_of(results: Results, dataset: str, measure: str) -> list[str]:
    """List the models that have a measure."""
    names = (model for *key, model, _ in results if key == [dataset, measure])
    return list(dict.fromkeys(names))


# Colours of models in all panels.
COLOURS = {
    "ConvVAE": "C3",
    "ConvVAE, a variance a pixel": "C1",
    "ConvVAE, sampler": "C1",
    "pythae VAE": "C0",
    "pythae BetaVAE": "C9",
    "PPCA": "C2",
    "PCA": "C2",
    "FactorAnalysis": "C4",
    "NMF": "C5",
    "BernoulliRBM": "C6",
    "PPCA, best": "C2",
    "FactorAnalysis, best": "C4",
    "spherical mixture, best": "C7",
    "Gaussian mixture, best": "k",
    "KernelDensity, best": "C8",
    "raw pixels": "k",
    "real images": "C7",
}
PANELS = {
    "log density": "log density, nats an image",
    "reconstruction MSE": "reconstruction, mean squared error",
    "accuracy": "accuracy of logistic regression",
    "squared MMD": "samples: squared MMD to real images",
}


def draw_picture(results: Results, path: Path) -> None:
    """Draw measures against the number of latents, with one row per dataset."""
    figure, axes = plt.subplots(2, 4, figsize=(18, 9.5), layout="constrained")
    for row, dataset in zip(axes, ["digits", "faces"], strict=True):
        for axis, (measure, title) in zip(row, PANELS.items(), strict=True):
            models = models_of(results, dataset, measure)
            if not models:  # samples are measured on digits only
                axis.set_axis_off()
                continue
            for model in models:
                draw_model(axis, results, (dataset, measure, model))
            axis.set_xscale("log", base=2)
            axis.set_xticks(LATENT_DIMS, LATENT_DIMS)
            axis.set_xlabel("latent features")
            axis.set_title(f"{dataset}: {title}", fontsize=10)
            axis.legend(
                fontsize=7.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16)
            )
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_model(axis: Any, results: Results, key: tuple[str, str, str]) -> None:
    """Draw means and standard deviations, or a dashed line without latents."""
    style = {"color": COLOURS[key[2]], "label": key[2]}
    if (*key, None) in results:
        axis.axhline(mean(results[*key, None]), ls="--", lw=1.2, **style)
        return
    dims = [n for n in LATENT_DIMS if (*key, n) in results]
    values = [results[*key, n] for n in dims]
    means, spreads = map(mean, values), map(stdev, values)
    axis.errorbar(dims, list(means), list(spreads), marker="o", capsize=2, **style)


def main() -> None:
    """Compute all measures; write csv file and figure, and print a table."""
    results = compute()
    folder = Path(__file__).parent
    write_csv(results, folder / "quality.csv")
    draw_picture(results, folder / "quality.png")
    print_table(results)


if __name__ == "__main__":
    main()
