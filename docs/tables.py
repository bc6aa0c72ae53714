"""Tables of the benchmarks' results, on the site and in README.md.

After a benchmark has run, `python docs/tables.py` renews the tables, which stand on the
pages between the comments `<!-- table: NAME -->` and `<!-- end of table -->`.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parents[1]

# Pages with tables.
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "benchmarks.md",
    ROOT / "docs" / "user_guide" / "hyperparameters.md",
)

# Header, then rows.
Table = list[list[str]]

# Names in quality.csv, and those of the tables. PPCA is PCA's density.
_MODELS = {
    "PPCA": "PCA",
    "PPCA, best": "PCA, best number of components",
    "FactorAnalysis, best": "FactorAnalysis, best number of components",
    "spherical mixture, best": "GaussianMixture, spherical, best number",
    "Gaussian mixture, best": "GaussianMixture, best number",
    "KernelDensity, best": "KernelDensity, best bandwidth",
    "ConvVAE, a variance a pixel": 'ConvVAE, `noise_type="diag"`',
    "ConvVAE, sampler": "ConvVAE, `sampler=GaussianMixture(10)`",
    "raw pixels": "all pixels",
}
_MEASURES = {
    "log density": ("log density, nats", "{:.1f}"),
    "reconstruction MSE": ("squared error", "{:.4f}"),
    "accuracy": ("accuracy", "{:.3f}"),
    "squared MMD": ("samples, MMD²", "{:z.3f}"),  # real images have -0.0004
}

# The same of real_images.csv.
_REAL_MODELS = {"ConvVAE diag": 'ConvVAE, `noise_type="diag"`', "pixels": "all pixels"}
_REAL_MEASURES = {
    "log density": ("nats", "{:.0f}"),
    "MSE": ("error", "{:.4f}"),
    "10-NN": ("10-NN", "{:.3f}"),
    "logistic regression": ("logistic", "{:.3f}"),
    "k-means NMI": ("NMI", "{:.2f}"),
    "squared MMD, prior": ("MMD²", "{:z.3f}"),
    "squared MMD, mixture": ("MMD², mixture", "{:z.3f}"),
    "processor seconds": ("seconds", "{:.0f}"),
}

# Workloads of speed.csv, and what they are called.
_WORKLOADS = {
    "train 8x8": "training, 8 x 8",
    "train 32x32": "training, 32 x 32",
    "train 28x28, 32 filters": "training, 28 x 28, 32 filters",
    "train 64x64, 32 filters": "training, 64 x 64, 32 filters",
    "train 128x128": "training, 128 x 128",
    "encode 1 row 8x8": "`transform` of 1 image, 8 x 8",
    "encode 1 row 128x128, 21,088,509 weights": (
        "`transform` of 1 image, 128 x 128, 21 million weights"
    ),
    "encode 10000 rows 32x32": "`transform` of 10,000 images, 32 x 32",
    "encode 1000 rows 128x128": "`transform` of 1,000 images, 128 x 128",
    "decode 4000 rows 32x32": "`inverse_transform` to 4,000 images, 32 x 32",
    "decode 250 rows 128x128": "`inverse_transform` to 250 images, 128 x 128",
    "score 500 rows 8x8": "`score_samples` of 500 images, 8 x 8",
    "score 100 rows 32x32": "`score_samples` of 100 images, 32 x 32",
    "fresh process: load a file, encode 1 row 128x128": (
        "a new process loads a file and encodes 1 image"
    ),
    "grid search": "grid search, 6 candidates, 3 folds, 10 epochs",
}
# Columns of the table of speeds. Of several sides in a column, the fastest counts.
_SIDES = {
    "Keras": ("Keras fit", "Keras predict", "Keras"),
    "Keras, tuned": (
        "Keras fit, several steps",
        "Keras fit, XLA",
        "Keras predict_on_batch",
    ),
    "PyTorch": ("PyTorch",),
    "pythae": ("pythae",),
    "ONNX Runtime": ("ONNX Runtime",),
}

# Normal images, and those that are odd.
_NORMAL = {
    ("digits", "0-8"): ("digits 0 to 8", "nines"),
    ("faces", "faces"): ("faces", "non-faces"),
    ("fashion", "0"): ("clothes of class 0", "other classes"),
    ("fashion", "0-2"): ("clothes of classes 0 to 2", "other classes"),
    ("fashion", "0-6"): ("clothes of classes 0 to 6", "other classes"),
}


def quality(dataset: str) -> Table:
    """All models with 8 features, or at their best, against all measures."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in _read("quality/quality.csv"):
        is_shown = row["measure"] in _MEASURES and row["latent_dim"] in {"", "8"}
        if row["dataset"] == dataset and is_shown:
            model = _MODELS.get(row["model"], row["model"])
            form = _MEASURES[row["measure"]][1]
            found[model][row["measure"]] = form.format(float(row["mean"]))
    measures = [
        measure
        for measure in _MEASURES
        if any(measure in of_model for of_model in found.values())
    ]
    header = ["model", *(_MEASURES[measure][0] for measure in measures)]
    rows = [
        [model, *(found[model].get(measure, "") for measure in measures)]
        for model in sorted(found, key=_order)
    ]
    return [header, *rows]


def _order(model: str) -> int:
    """ConvVAE first, then PCA, then the others as in the file."""
    names = ("ConvVAE", "PCA")
    return next((i for i, name in enumerate(names) if model.startswith(name)), 2)


def real_images(
    dataset: str, n_images: int, latent_dim: int, measures: tuple[str, ...]
) -> Table:
    """All models, as means over the seeds that there are."""
    found = _real_results(dataset, n_images)
    # Pixels have no latent dimensions: 0.
    fits = [(model, n) for model, n in found if n in {0, latent_dim}]
    header = ["model", *(_REAL_MEASURES[measure][0] for measure in measures)]
    rows = [
        [_REAL_MODELS.get(model, model), *_means(found[model, n], measures)]
        for model, n in sorted(fits, key=lambda fit: _order(fit[0]))
    ]
    return [header, *rows]


def latent_dims(
    dataset: str, n_images: int, models: tuple[str, ...], measures: tuple[str, ...]
) -> Table:
    """Some models with several numbers of features."""
    found = _real_results(dataset, n_images)
    header = ["features", "model", *(_REAL_MEASURES[name][0] for name in measures)]
    rows = [
        [str(n), model, *_means(found[model, n], measures)]
        for n in sorted({n for _, n in found} - {0})
        for model in models
    ]
    return [header, *rows]


def _real_results(
    dataset: str, n_images: int
) -> dict[tuple[str, int], dict[str, list[float]]]:
    """Values of all seeds by (model, latent_dim) and measure."""
    found: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in _read("real_images/real_images.csv"):
        if (row["dataset"], row["training_images"]) == (dataset, str(n_images)):
            key = row["model"], int(row["latent_dim"])
            found[key][row["measure"]].append(float(row["value"]))
    return found


def _means(found: dict[str, list[float]], measures: tuple[str, ...]) -> list[str]:
    cells = []
    for measure in measures:
        values = found[measure]
        cells.append(_REAL_MEASURES[measure][1].format(mean(values)) if values else "")
    return cells


def outliers() -> Table:
    """Area under the ROC curve, mean over the seeds, of detectors on pixels."""
    found: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for row in _read("outliers/outliers.csv"):
        odd = _NORMAL[row["dataset"], row["normal"]][1]
        is_plain = not row["model"].startswith("PCA") or row["model"].endswith("error")
        if row["measure"] == f"AUC, {odd}" and is_plain:
            model = "PCA's error" if row["model"].startswith("PCA") else row["model"]
            key = row["dataset"], row["normal"], row["training_images"]
            found[key][model].append(float(row["value"]))
    models = list(next(iter(found.values())))
    names = [model.replace("ConvVAEOutlierDetector", "ConvVAE") for model in models]
    rows = []
    for (dataset, normal, n_images), of_model in found.items():
        kind, odd = _NORMAL[dataset, normal]
        values = [of_model.get(model) for model in models]
        cells = [f"{mean(each):.3f}" if each else "" for each in values]
        rows.append([f"{int(n_images):,} {kind}", odd, *cells])
    return [["normal images to train on", "odd images", *names], *rows]


def speed(workloads: tuple[str, ...], sides: tuple[str, ...]) -> Table:
    """How many times as fast ConvVAE is, with the default settings of all sides."""
    ratios: dict[tuple[str, str], float] = {}
    rows_read = _read("speed/speed.csv")
    unknown = {row["workload"] for row in rows_read} - _WORKLOADS.keys()
    if unknown:
        msg = f"speed.csv has workloads without a name for the tables: {unknown}"
        raise ValueError(msg)
    for row in rows_read:
        for column, names in _SIDES.items():
            is_ratio = row["unit"] == "times as fast"
            is_default = row["against_setting"] == "default"
            if is_ratio and is_default and row["against"] in names:
                key = (row["workload"], column)
                ratio = float(row["median"])
                ratios[key] = min(ratio, ratios.get(key, ratio))
    rows = []
    for workload in workloads:
        cells = (_rounded(ratios.get((workload, side))) for side in sides)
        rows.append([_WORKLOADS[workload], *cells])
    return [["", *sides], *rows]


def _rounded(ratio: float | None) -> str:
    if ratio is None:
        return ""
    n_digits = 0 if ratio >= 10 else 1 if ratio >= 0.2 else 2
    return f"{ratio:.{n_digits}f}"


def choices() -> Table:
    """Held-out log density in nats a pixel, with one parameter changed at a time."""
    sizes: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in _read("choices/choices.csv"):
        to = f"{row['to']}: " if row["changed"] else ""
        size, n_images = row["image_size"], int(row["images"])
        column = f"{size} x {size}, {n_images:,} images"
        sizes[row["changed"]][column].append(f"{to}{row['nats_per_pixel']}")
    columns = list(next(iter(sizes.values())))
    table = [["changed", *columns]]
    for changed, cells in sizes.items():
        for i in range(max(len(values) for values in cells.values())):
            label = f"`{changed}`" if changed else "nothing"
            table.append([label, *(cells[size][i] for size in columns)])
    return table


TABLES: dict[str, Callable[[], Table]] = {
    "choices": choices,
    "outliers": outliers,
    "quality_digits": lambda: quality("digits"),
    "quality_faces": lambda: quality("faces"),
    # Its fits are of several machines, whose times do not compare.
    "clothes": lambda: real_images(
        "fashion-mnist", 10_000, 16, tuple(_REAL_MEASURES)[:-1]
    ),
    "clothes_in_short": lambda: real_images(
        "fashion-mnist", 10_000, 16, tuple(_REAL_MEASURES)[:6]
    ),
    "clothes_dims": lambda: latent_dims(
        "fashion-mnist",
        10_000,
        ("ConvVAE", "pythae BetaVAE", "PCA"),
        tuple(_REAL_MEASURES)[:5],
    ),
    "more_clothes": lambda: real_images(
        "fashion-mnist", 60_000, 16, tuple(_REAL_MEASURES)
    ),
    "patches": lambda: real_images("patches 32 x 32", 1_800, 32, tuple(_REAL_MEASURES)),
    "large_patches": lambda: real_images(
        "patches 64 x 64", 1_800, 32, tuple(_REAL_MEASURES)
    ),
    "speed": lambda: speed(tuple(_WORKLOADS), tuple(_SIDES)),
    "speed_in_short": lambda: speed(
        (
            "train 8x8",
            "train 32x32",
            "train 28x28, 32 filters",
            "train 64x64, 32 filters",
            "train 128x128",
            "encode 1 row 8x8",
            "encode 10000 rows 32x32",
            "decode 4000 rows 32x32",
            "grid search",
        ),
        ("Keras", "PyTorch", "pythae"),
    ),
}


def markdown(table: Table) -> str:
    """Write a table as Markdown."""
    header, *rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_tables(text: str) -> str:
    """Text of a page with the tables of the present results."""
    return re.sub(
        r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)",
        lambda found: found[1] + "\n" + markdown(TABLES[found[2]]()) + "\n" + found[3],
        text,
        flags=re.DOTALL,
    )


def _read(name: str) -> list[dict[str, str]]:
    path = ROOT / "benchmarks" / name
    lines = path.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text("utf-8")), encoding="utf-8")
