"""Growth of time and memory with the number and size of images, and with draws.

1. Time per image and peak memory of `fit` (one epoch) and `transform`, against the
   number of images of 32 x 32.
2. The same against the size of images.
3. The same of `score_samples`, against `n_draws`.
4. Additional time of the first fit in a process, and of imports.

Usage, on an otherwise idle machine with Linux (about 5 minutes on 2 cores):

    pip install -e '.[benchmarks]'
    python benchmarks/growth/growth.py

The script writes growth.csv and growth.png to its folder and prints a table.

Each point is measured in a new process. Except for first fits, networks are compiled
before they are timed. Peak memory is relative to the process with its images in memory
and its network warmed up. Images have dtype uint8.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import matplotlib as mpl

from benchmarks.common.machine import machine_lines
from benchmarks.common.worker import QUIET

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

FOLDER = Path(__file__).parent

# Total number of pixels of the points along "size".
N_PIXELS = 2**23
FIRST_FIT_TURNS = 3


class Point(NamedTuple):
    """Measurement; `against` is the parameter that varies along its curve."""

    cost: str
    against: str
    n_images: int
    size: int = 32
    hidden_layers: int = 2
    n_draws: int = 1

    @property
    def place(self) -> int:
        """Value of the parameter that varies."""
        return getattr(self, self.against)


# Number of layers per size: four, or three where a single pixel would remain.
LAYERS = {16: 3, 32: 4, 64: 4, 128: 4, 256: 4}
POINTS = (
    *(
        Point(cost, "n_images", n)
        for cost in ("fit", "transform")
        for n in (1_000, 10_000, 100_000)
    ),
    *(
        Point(cost, "size", N_PIXELS // size**2, size, n_layers)
        for cost in ("fit", "transform")
        for size, n_layers in LAYERS.items()
    ),
    *(
        Point("score_samples", "n_draws", 100, n_draws=n)
        for n in (1, 4, 16, 64, 256, 1024)
    ),
)
FIRST_FITS = (
    Point("first fit", "size", 128, 8, 2),
    Point("first fit", "size", 128, 32, 2),
    Point("first fit", "size", 128, 128, 4),
)

# One number per unit.
Results = dict[Point, dict[str, float]]


def measure(point: Point) -> dict[str, float]:
    """Measure a point in a new process."""
    numbers = (point.n_images, point.size, point.hidden_layers, point.n_draws)
    process = subprocess.run(  # noqa: S603 - a script of this folder
        [sys.executable, FOLDER / "point.py", point.cost, *map(str, numbers)],
        env=os.environ | QUIET,
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(process.stdout)


def measure_first_fit(point: Point) -> dict[str, float]:
    """Measure a first fit in several new processes and return medians."""
    outcomes = [measure(point) for _ in range(FIRST_FIT_TURNS)]
    return {unit: median(outcome[unit] for outcome in outcomes) for unit in outcomes[0]}


# Results.


def write_csv(results: Results, path: Path) -> None:
    """Write machine and versions, then one line per point and unit."""
    with path.open("w", newline="") as file:
        file.writelines(f"{line}\n" for line in machine_lines())
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*Point._fields, "unit", "number"])
        for point, numbers in results.items():
            for unit, number in numbers.items():
                writer.writerow([*point, unit, f"{number:.4g}"])


def print_table(results: Results) -> None:
    """Print one line per point."""
    for point, numbers in results.items():
        where = f"{point.cost}, {point.against}={point.place}"
        costs = ", ".join(f"{number:.3g} {unit}" for unit, number in numbers.items())
        print(f"{where:<32}{costs}")


PANELS = {
    "n_images": "images of 32 x 32",
    "size": "height and width of images",
    "n_draws": "draws of score_samples",
}


def draw_picture(results: Results, path: Path) -> None:
    """Draw time and memory, with one column of panels per varying parameter."""
    lines: dict[tuple[str, str], list[tuple[int, dict[str, float]]]] = defaultdict(list)
    for point, numbers in results.items():
        lines[point.against, point.cost].append((point.place, numbers))
    units = ["ms an image", "MB at the peak"]
    figure, axes = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    for column, (against, title) in zip(axes.T, PANELS.items(), strict=True):
        for axis, unit in zip(column, units, strict=True):
            draw_panel(
                axis, unit, {cost: x for (a, cost), x in lines.items() if a == against}
            )
            axis.set_xlabel(title)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_panel(
    axis: Any, unit: str, lines: dict[str, list[tuple[int, dict[str, float]]]]
) -> None:
    """Draw one unit of all costs that have it."""
    all_places = set()
    for cost, points in lines.items():
        if unit in points[0][1]:
            places, numbers = zip(*points, strict=True)
            axis.plot(places, [n[unit] for n in numbers], marker="o", label=cost)
            all_places.update(places)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks(sorted(all_places))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.set_ylabel(unit)
    axis.legend()


def main() -> None:
    """Run all measurements; write csv file and figure, and print a table."""
    start_time = perf_counter()
    results: Results = {}
    for point in (*FIRST_FITS, *POINTS):
        seconds = perf_counter() - start_time
        where = f"{point.cost}, {point.against}={point.place}"
        print(f"{seconds:5.0f} s  {where}", flush=True)
        is_first_fit = point in FIRST_FITS
        results[point] = measure_first_fit(point) if is_first_fit else measure(point)
    print(f"{perf_counter() - start_time:5.0f} s  done")
    write_csv(results, FOLDER / "growth.csv")
    draw_picture(results, FOLDER / "growth.png")
    print_table(results)


if __name__ == "__main__":
    main()
