"""What ConvVAE does with images that are larger than memory, and with Ctrl-C.

1. Peak of memory of `fit` (one epoch) and `transform` on a memory map of 2 GB, beside
   that of 32 epochs on a few of its images.
2. Time an image from a memory map beside that from memory.
3. How good a network becomes whose images are sorted and read in runs, against how
   long these are and how many are shuffled together.
4. How long after Ctrl-C `fit` returns.

In a checkout on Linux, with nothing else to do, some 35 minutes on 2 cores:

    pip install -e '.[benchmarks]'
    python benchmarks/storage.py

writes storage.csv beside this file, and prints the same. It needs 2 GB of disk for a
while, in the folder for temporary files.

Every case is measured in a new process. Memory is counted above what calls on the first
1024 images leave. The images are of 128 x 128 pixels and uint8, but for the digits.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from growth_point import random_images
from machine import machine_lines
from worker import QUIET

FOLDER = Path(__file__).parent

N_IMAGES = 2**17
SIZE = 128
# Written at a time.
N_TOGETHER = 2**12

# What is measured, and the arguments that say of what. For the order these are rows a
# run, and runs a block; the library's own blocks of large images have 64 runs.
CASES = {
    "memory, fit, batches of 64": ("memory", "fit", "64"),
    "memory, fit, batches of 256": ("memory", "fit", "256"),
    # What this takes is TensorFlow's and the C library's, not the images'.
    "memory, fit, 1024 images 32 times": ("memory", "fit again", "64"),
    "memory, transform": ("memory", "transform", "64"),
    "time, fit": ("time", "fit"),
    "time, transform": ("time", "transform"),
    "order, all shuffled": ("order", "2048", "1"),
    "order, runs of 4, 64 a block": ("order", "4", "64"),
    "order, runs of 16, 16 a block": ("order", "16", "16"),
    "order, runs of 64, 4 a block": ("order", "64", "4"),
    "order, runs of 256, 1 a block": ("order", "256", "1"),
}

INTERRUPTED = (
    "in memory",
    "memory map",
    "slow",
    "in memory, 32 filters",
    "in memory, 8 x 8",
)
N_INTERRUPTIONS = 5
# After training began.
MAX_SECONDS = 20.0


def make_images(path: Path) -> None:
    """Write noise, which takes as long as anything to train on."""
    shape = (N_IMAGES, SIZE, SIZE)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    for start in range(0, N_IMAGES, N_TOGETHER):
        images[start : start + N_TOGETHER] = random_images(N_TOGETHER, SIZE)


def start_point(path: Path, measure: str, *arguments: str) -> subprocess.Popen:
    """A process that measures a case."""
    return subprocess.Popen(  # noqa: S603 - a script of our own
        [sys.executable, FOLDER / "storage_point.py", measure, path, *arguments],
        env=os.environ | QUIET,
        stdout=subprocess.PIPE,
        text=True,
    )


def measure(path: Path, case: tuple[str, ...]) -> dict[str, float]:
    """Figures of a case, from a process of its own."""
    with start_point(path, *case) as process:
        return json.load(process.stdout)


def measure_interruptions(path: Path, source: str) -> dict[str, float]:
    """How long fits in another process go on after SIGINT at random moments."""
    moments = random.Random(0)  # noqa: S311 - no secret
    delays = []
    with start_point(path, "interrupt", source, str(N_INTERRUPTIONS)) as process:
        for _ in range(N_INTERRUPTIONS):
            wait_for_line(process, "training")
            time.sleep(moments.uniform(0.0, MAX_SECONDS))
            sent = time.time()
            process.send_signal(signal.SIGINT)
            _, returned = wait_for_line(process, "returned").split()
            delays.append(float(returned) - sent)
        return {
            "s to return, median": median(delays),
            "s to return, maximum": max(delays),
            **json.load(process.stdout),
        }


def wait_for_line(process: subprocess.Popen, word: str) -> str:
    """The next line of a process that begins with a word."""
    for line in process.stdout:
        if line.startswith(word):
            return line
    msg = f"The process ended before it printed {word!r}."
    raise RuntimeError(msg)


def write_csv(results: dict[str, dict[str, float]], path: Path) -> None:
    """One line a case and unit, below the machine's."""
    with path.open("w", newline="") as file:
        file.writelines(f"{line}\n" for line in machine_lines())
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "unit", "number"])
        for case, numbers in results.items():
            for unit, number in numbers.items():
                writer.writerow([case, unit, f"{number:.4g}"])


def main() -> None:
    """Measure all, print each case as it comes, and write the csv."""
    start = time.perf_counter()
    results: dict[str, dict[str, float]] = {}

    def record(case: str, numbers: dict[str, float]) -> None:
        results[case] = numbers
        figures = ", ".join(f"{number:.3g} {unit}" for unit, number in numbers.items())
        seconds = time.perf_counter() - start
        print(f"{seconds:5.0f} s  {case:<34}{figures}", flush=True)

    with TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        make_images(path)
        for case, arguments in CASES.items():
            record(case, measure(path, arguments))
        for source in INTERRUPTED:
            record(f"Ctrl-C, {source}", measure_interruptions(path, source))
    write_csv(results, FOLDER / "storage.csv")


if __name__ == "__main__":
    main()
