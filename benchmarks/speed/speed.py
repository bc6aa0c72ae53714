"""Speed of ConvVAE compared to Keras, PyTorch, ONNX Runtime and pythae.

All sides use the same network and loss (sum of squared errors plus KL divergence). A
side is one of these libraries, with the code that runs the workloads in it.

1. Training on images of 8 x 8, 32 x 32 and 128 x 128, and with 32 filters on images of
   28 x 28 and 64 x 64, from the same weights.
2. Encoding, decoding and scoring (64 draws) of one and of many images.
3. Loading a fitted network and encoding one image in a fresh process.
4. Grid search over 6 candidates with 3 folds, as a whole process with its imports.
5. Rate of multiply-adds in training, as a fraction of that of matrix products.

Usage, on an otherwise idle machine (about 30 minutes on 2 cores):

    pip install -e '.[benchmarks]'
    python benchmarks/speed/speed.py

The script writes speed.csv and speed.png to its folder and prints a table.

All sides start from the weights of ConvVAE. Their losses or results are compared before
the timing, and the losses of training after it. Each side runs in a separate process,
compiled and warmed up. The sides take turns (A B C, A B C, ...) and ratios are computed
per turn. The growth benchmark measures the first fit of a process. All sides other than
ConvVAE are timed in the fastest of several forms, which the csv file names: input
pipelines and forms of the loss in Keras; memory layouts, optimizers and numbers of
threads in PyTorch; batch sizes of encoding, decoding and scoring.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common.worker import QUIET, Worker
from benchmarks.speed import fresh_process
from benchmarks.speed.results import (
    SETTINGS,
    Series,
    draw_picture,
    print_table,
    write_csv,
)
from benchmarks.speed.workloads import Serving, Training, forward_multiply_adds

FOLDER = Path(__file__).parent


TRAININGS = (
    Training(size=8, hidden_layers=2, batch_size=32, n_images=3200, epochs=6),
    Training(size=32, hidden_layers=2, batch_size=128, n_images=2560, epochs=4),
    Training(
        size=28, hidden_layers=2, batch_size=64, n_images=1280, epochs=12, filters=32
    ),
    Training(
        size=64, hidden_layers=3, batch_size=64, n_images=256, epochs=6, filters=32
    ),
    Training(size=128, hidden_layers=4, batch_size=64, n_images=256, epochs=3),
)
# Training that is compared with matrix products.
BOUND = TRAININGS[-1]
SERVINGS = (
    Serving("encode", size=8, hidden_layers=2, n_images=1),
    Serving("encode", size=128, hidden_layers=3, n_images=1, filters=32, latent_dim=70),
    Serving("encode", size=32, hidden_layers=2, n_images=10_000),
    Serving("encode", size=128, hidden_layers=4, n_images=1000),
    Serving("decode", size=32, hidden_layers=2, n_images=4000),
    Serving("decode", size=128, hidden_layers=4, n_images=250),
    Serving("score", size=8, hidden_layers=2, n_images=500),
    Serving("score", size=32, hidden_layers=2, n_images=100),
)
TRAINING_TURNS = 5
SERVING_TURNS = 9
FRESH_TURNS = 5
GRID_TURNS = 3

# Side, setting and command of the grid searches.
GRID_SEARCHES = (
    ("skvae", "default", "grid_skvae.py 1 threading"),
    ("skvae, 2 threads", "default", "grid_skvae.py 2 threading"),
    ("skvae, 2 processes", "default", "grid_skvae.py 2 loky"),
    ("Keras", "default", "grid_keras.py"),
    ("PyTorch", "default", "grid_torch.py"),
)
GRID_SEARCH = "grid search"
FRESH_PROCESS = "fresh process: load a file, encode 1 row 128x128"

# Tolerances: the sides differ in rounding, order of images and random noise.
LOSS_RTOL = 1e-4
POLICY_LOSS_RTOL = 0.02
RESULT_ATOL = 1e-4
SCORE_RTOL = 1e-3
TRAINED_LOSS_RTOL = 0.10  # losses still fall fast after so few steps
GRID_LOSS_RTOL = 0.10


class Side(NamedTuple):
    """Class, setting and arguments of a worker, and the tolerance of its loss."""

    target: str  # "module:class" in the folder sides
    setting: str
    arguments: tuple[str, ...] = ()
    loss_rtol: float = LOSS_RTOL


class Entry(NamedTuple):
    """Form of a side that is ready to be timed in a worker."""

    worker: Worker
    side: str
    setting: str
    form: str


# Training.


def training_sides(workload: Training) -> list[Side]:
    """Sides of a training, ConvVAE first."""
    sides = [
        Side("skvae_side:Training", "default"),
        Side("keras_side:Training", "default"),
        Side("keras_side:Training", "set"),
        Side("torch_side:Training", "default"),
        Side("pythae_side:Training", "default"),
    ]
    if workload == BOUND:
        arguments = ("mixed_bfloat16",)
        sides.append(
            Side("skvae_side:Training", "default", arguments, POLICY_LOSS_RTOL)
        )
    return sides


def start_worker(stack: ExitStack, side: Side, *arguments: Any) -> Worker:
    """Start a worker, which is stopped at the exit of the stack."""
    environment = SETTINGS[side.setting]
    arguments = (*arguments, *side.arguments)
    target = f"benchmarks.speed.sides.{side.target}"
    return stack.enter_context(Worker(target, *arguments, environment=environment))


def measure_training(workload: Training) -> list[Series]:
    """Measure images per second on all sides."""
    with ExitStack() as stack:
        workers = {
            side: start_worker(stack, side, workload)
            for side in training_sides(workload)
        }
        check_same_losses(workload, workers)
        entries = ready_entries(workers)
        matrix_product = None
        if workload == BOUND:
            side = Side("matrix_product:MatrixProduct", "default")
            matrix_product = start_worker(stack, side)
            matrix_product.ask("rate")

        n_trained = workload.n_images * workload.epochs
        rates: list[list[float]] = [[] for _ in entries]
        flops: list[float] = []
        losses: dict[str, list[float]] = defaultdict(list)
        for _ in range(TRAINING_TURNS):
            for entry, side_rates in zip(entries, rates, strict=True):
                seconds, loss = entry.worker.ask("train", entry.side)
                side_rates.append(n_trained / seconds)
                losses[f"{entry.side}, {entry.setting}"].append(loss)
            if matrix_product:
                flops.append(matrix_product.ask("rate"))
    check_trained_losses(str(workload), losses)
    series = [
        Series(str(workload), entry.side, entry.setting, entry.form, "images/s", values)
        for entry, values in zip(entries, rates, strict=True)
    ]
    return series + parts_of_bound(workload, series, flops) if flops else series


def ready_entries(workers: dict[Side, Worker]) -> list[Entry]:
    """Select and warm up the forms of all sides."""
    return [
        Entry(worker, name, side.setting, form)
        for side, worker in workers.items()
        for name, form in worker.ask("forms").items()
    ]


def check_same_losses(workload: Training, workers: dict[Side, Worker]) -> None:
    """Set the same weights on all sides and compare their number and the loss."""
    weights = next(iter(workers.values())).ask("start_weights")
    n_images = workload.batch_size
    checks = [worker.ask("check", weights, n_images) for worker in workers.values()]
    n_weights, loss = checks[0]
    for side, (side_n_weights, side_loss) in zip(workers, checks, strict=True):
        assert side_n_weights == n_weights
        assert math.isclose(side_loss, loss, rel_tol=side.loss_rtol), (side_loss, loss)


def check_trained_losses(workload: str, losses: dict[str, list[float]]) -> None:
    """Print and compare the losses of the last epoch, as medians of all turns."""
    medians = {name: median(values) for name, values in losses.items()}
    middle = median(medians.values())
    for name, loss in medians.items():
        print(f"  {workload}, {name}: loss {loss:.4g} after training", flush=True)
        assert math.isclose(loss, middle, rel_tol=TRAINED_LOSS_RTOL), (loss, middle)


def parts_of_bound(
    workload: Training, trainings: list[Series], flops: list[float]
) -> list[Series]:
    """Compute the rate of matrix products and the fraction reached in training.

    A training step has three times the multiply-adds of the forward pass: for outputs,
    gradients of the inputs and gradients of the weights.
    """
    flops_an_image = 3 * 2 * forward_multiply_adds(workload)
    name = str(workload)
    in_giga = [rate / 1e9 for rate in flops]
    parts = [Series(name, "matrix product", "default", "", "GFLOP/s", in_giga)]
    for training in trainings:
        if training.side.startswith("skvae"):
            values = [
                rate * flops_an_image / bound
                for rate, bound in zip(training.values, flops, strict=True)
            ]
            unit = "of matrix product"
            parts.append(training._replace(unit=unit, values=values))
    return parts


# Serving: encoding, decoding and scoring.


def serving_sides() -> list[Side]:
    """Sides of serving, ConvVAE first; only Keras has settings of TensorFlow."""
    return [
        Side("skvae_side:Serving", "default"),
        Side("keras_side:Serving", "default"),
        Side("keras_side:Serving", "set"),
        Side("torch_side:Serving", "default"),
        Side("onnx_side:Serving", "default"),
    ]


def measure_serving(workload: Serving) -> list[Series]:
    """Measure milliseconds per call on all sides."""
    with ExitStack() as stack:
        workers = {
            side: start_worker(stack, side, workload) for side in serving_sides()
        }
        own, *others = workers.values()
        weights = own.ask("weights")
        expected = own.ask("check", weights)
        for other in others:
            check_same_results(workload, other.ask("check", weights), expected)
        entries = ready_entries(workers)
        times: list[list[float]] = [[] for _ in entries]
        for _ in range(SERVING_TURNS):
            for entry, side_times in zip(entries, times, strict=True):
                side_times.append(1e3 * entry.worker.ask("serve", entry.side))
    return [
        Series(str(workload), entry.side, entry.setting, entry.form, "ms", values)
        for entry, values in zip(entries, times, strict=True)
    ]


def check_same_results(
    workload: Serving, results: np.ndarray, expected: np.ndarray
) -> None:
    """Compare results with those of ConvVAE; scores differ by their random draws."""
    assert results.shape == expected.shape
    if workload.task == "score":
        np.testing.assert_allclose(results.mean(), expected.mean(), rtol=SCORE_RTOL)
    else:
        np.testing.assert_allclose(results, expected, atol=RESULT_ATOL)


# Fresh processes.


def measure_fresh_processes() -> list[Series]:
    """Measure seconds of processes that load a network and encode one image."""
    times: dict[str, list[float]] = {side: [] for side in fresh_process.SIDES}
    script = [sys.executable, FOLDER / "fresh_process.py"]
    environment = os.environ | QUIET
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*script, "prepare", folder], env=environment, check=True)  # noqa: S603
        for _ in range(FRESH_TURNS):
            for side, side_times in times.items():
                start_time = perf_counter()
                subprocess.run([*script, side, folder], env=environment, check=True)  # noqa: S603
                side_times.append(perf_counter() - start_time)
        expected = np.load(Path(folder, "skvae.npy"))
        for path in Path(folder).glob("*.npy"):
            if path.stem in fresh_process.SIDES:
                np.testing.assert_allclose(np.load(path), expected, atol=RESULT_ATOL)
    return [
        Series(FRESH_PROCESS, side, "default", "", "s", values)
        for side, values in times.items()
    ]


# Grid search.


def measure_grid_search() -> list[Series]:
    """Measure seconds of whole processes that run a grid search."""
    times: list[list[float]] = [[] for _ in GRID_SEARCHES]
    for turn in range(GRID_TURNS):
        outcomes = {}
        for search, side_times in zip(GRID_SEARCHES, times, strict=True):
            side, setting, command = search
            script, *arguments = command.split()
            start_time = perf_counter()
            process = subprocess.run(  # noqa: S603
                [sys.executable, FOLDER / "grid_search" / script, *arguments],
                env=os.environ | QUIET | SETTINGS[setting],
                stdout=subprocess.PIPE,
                check=True,
            )
            side_times.append(perf_counter() - start_time)
            outcomes[f"{side}, {setting}"] = json.loads(process.stdout)
        if turn == 0:
            check_grid_searches(outcomes)
    return [
        Series(GRID_SEARCH, side, setting, command, "s", values)
        for (side, setting, command), values in zip(GRID_SEARCHES, times, strict=True)
    ]


def check_grid_searches(outcomes: dict[str, dict[str, Any]]) -> None:
    """Print the results of the grid searches and compare their training losses."""
    middle = median(outcome["training"] for outcome in outcomes.values())
    for name, outcome in outcomes.items():
        print(
            f"  {GRID_SEARCH}, {name}: best {outcome['best']}, mean loss after "
            f"training {outcome['training']:.4g}, held out {outcome['held_out']:.4g}",
            flush=True,
        )
        assert math.isclose(outcome["training"], middle, rel_tol=GRID_LOSS_RTOL)


def main() -> None:
    """Run all measurements; write csv file and figure, and print a table."""
    start_time = perf_counter()

    def say(what: str) -> None:
        print(f"{perf_counter() - start_time:5.0f} s  {what}", flush=True)

    series = []
    for training in TRAININGS:
        say(str(training))
        series += measure_training(training)
    for serving in SERVINGS:
        say(str(serving))
        series += measure_serving(serving)
    say(FRESH_PROCESS)
    series += measure_fresh_processes()
    say(GRID_SEARCH)
    series += measure_grid_search()
    say("done")
    write_csv(series, FOLDER / "speed.csv")
    draw_picture(series, FOLDER / "speed.png")
    print_table(series)


if __name__ == "__main__":
    main()
