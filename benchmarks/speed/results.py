"""Results of the speed benchmark: ratios, csv file, table and figure."""

from __future__ import annotations

import csv
import math
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np

from benchmarks.common.machine import machine_lines

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

if TYPE_CHECKING:
    from pathlib import Path

# Environment variables of TensorFlow: the defaults, and what ConvVAE does without them:
# oneDNN, which TensorFlow uses by default on some processors only, and one thread per
# operation.
_VARIABLES = {"TF_NUM_INTRAOP_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "1"}
SETTINGS: dict[str, dict[str, str]] = {"default": {}, "set": _VARIABLES}

_RATES, _DURATIONS = {"images/s"}, {"ms", "s"}


class Series(NamedTuple):
    """Measurements of one side, one value per turn."""

    workload: str
    side: str
    setting: str
    form: str
    unit: str
    values: list[float]

    @property
    def label(self) -> str:
        """Side and setting in one name."""
        return self.side if self.setting == "default" else f"{self.side}, set"


class Ratio(NamedTuple):
    """Speed of ConvVAE relative to another side, one value per turn."""

    own: Series
    other: Series
    values: list[float]


def ratios(series: list[Series]) -> list[Ratio]:
    """Compute the ratios of ConvVAE to all others per workload."""
    found = []
    for own in series:
        if own.side != "skvae" or own.unit not in _RATES | _DURATIONS:
            continue
        for other in series:
            is_same_measure = own.workload == other.workload and own.unit == other.unit
            if is_same_measure and own.label != other.label:
                faster, slower = (own, other) if own.unit in _RATES else (other, own)
                pairs = zip(faster.values, slower.values, strict=True)
                found.append(Ratio(own, other, [one / two for one, two in pairs]))
    return found


def write_csv(series: list[Series], path: Path) -> None:
    """Write machine and versions, then one line per side, then one per ratio."""
    variables = " ".join(f"{name}={value}" for name, value in _VARIABLES.items())
    lines = [*machine_lines(), f"# set: {variables}"]
    names = ["workload", "side", "setting", "against", "against_setting", "unit"]
    with path.open("w", newline="") as file:
        file.writelines(f"{line}\n" for line in lines)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "median", "min", "max", "n", "form"])
        for one in series:
            start = [one.workload, one.side, one.setting, "", "", one.unit]
            writer.writerow([*start, *_summary(one.values), one.form])
        for own, other, values in ratios(series):
            start = [own.workload, own.side, own.setting, other.side, other.setting]
            writer.writerow([*start, "times as fast", *_summary(values), ""])


def print_table(series: list[Series]) -> None:
    """Print the measurements of all sides and the relative speed of ConvVAE."""
    found = {
        (own.workload, other.label): values for own, other, values in ratios(series)
    }
    print("\nmedian (least to greatest of all turns)")
    print(f"{'':<88}times as fast is skvae")
    for workload in dict.fromkeys(one.workload for one in series):
        print(workload)
        for one in series:
            if one.workload != workload:
                continue
            line = f"  {one.label:<39}{f'{_spread(one.values)} {one.unit}':<47}"
            values = found.get((workload, one.label))
            if values and one.unit in _RATES | _DURATIONS:
                line += _spread(values)
            print(line.rstrip())


def draw_picture(series: list[Series], path: Path) -> None:
    """Draw bars of ratios, with one panel per workload."""
    all_ratios = ratios(series)
    workloads = list(dict.fromkeys(own.workload for own, _, _ in all_ratios))
    n_columns = math.ceil(len(workloads) / 3)
    figure, axes = plt.subplots(3, n_columns, figsize=(22, 13), layout="constrained")
    for axis in axes.flat[len(workloads) :]:
        axis.set_axis_off()
    for axis, workload in zip(axes.flat, workloads, strict=False):
        shown = [ratio for ratio in all_ratios if ratio.own.workload == workload]
        _draw_panel(axis, workload, shown)
    figure.supxlabel("times as fast is skvae: median, least and greatest of all turns")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _draw_panel(axis: Any, title: str, shown: list[Ratio]) -> None:
    """Draw one workload, with a bar for each other side."""
    shown = [ratio for ratio in shown if ratio.other.side != "skvae"]
    labels = [other.label for _, other, _ in shown]
    places = -np.arange(len(shown))
    middles = np.array([median(values) for *_, values in shown])
    ends = np.array([[min(values), max(values)] for *_, values in shown]).T
    # Bars start at 1, which is equal speed.
    axis.barh(places, middles - 1, 0.7, left=1, xerr=np.abs(ends - middles))
    axis.axvline(1, color="k", lw=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_yticks(places, labels)
    axis.set_title(title, fontsize=10)


def _summary(values: list[float]) -> list[str]:
    """Format median, minimum, maximum and number of values."""
    numbers = [median(values), min(values), max(values)]
    return [*(f"{number:.4g}" for number in numbers), str(len(values))]


def _spread(values: list[float]) -> str:
    """Format median, minimum and maximum."""
    middle, least, greatest, _ = _summary(values)
    return f"{middle} ({least} to {greatest})"
