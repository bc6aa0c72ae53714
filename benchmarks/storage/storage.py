"""Memory, time and order of images larger than memory, and interruption of `fit`.

1. Peak memory of `fit` (one epoch) and `transform` on a memory map of 2 GB, compared to
   32 epochs on a few of its images.
2. Time per image from a memory map, compared to images in memory.
3. Held-out score after training on sorted images that are read in runs, or in chunks of
   the array's own, against their length and the number that are shuffled together.
4. Time from Ctrl-C to the return of `fit`.

Usage, on an otherwise idle machine with Linux (about 35 minutes on 2 cores):

    pip install -e '.[benchmarks]'
    python benchmarks/storage/storage.py

The script writes storage.csv to its folder and prints the same. It needs 2 GB of disk
in the folder for temporary files.

Each case is measured in a new process. Peak memory is relative to the process after
calls on the first 1024 images. Except for the digits, images have 128 x 128 pixels of
dtype uint8.
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

from benchmarks.common.machine import machine_lines
from benchmarks.common.measurement import random_images
from benchmarks.common.worker import QUIET

FOLDER = Path(__file__).parent

N_IMAGES = 2**17
SIZE = 128
# Number of images that are written at once.
N_TOGETHER = 2**12

# Measure and arguments of each case. The arguments of "order" are the number of images
# per run and of runs per block; in skvae, a block of large images has 64 runs, or 8 of
# the array's own chunks.
CASES = {
    "memory, fit, batches of 64": ("memory", "fit", "64"),
    "memory, fit, batches of 256": ("memory", "fit", "256"),
    # Memory of TensorFlow and the C library, as these images need no blocks.
    "memory, fit, 1024 images 32 times": ("memory", "fit again", "64"),
    "memory, transform": ("memory", "transform", "64"),
    "time, fit": ("time", "fit"),
    "time, transform": ("time", "transform"),
    "order, all shuffled": ("order", "2048", "1"),
    "order, runs of 4, 64 a block": ("order", "4", "64"),
    "order, runs of 16, 16 a block": ("order", "16", "16"),
    "order, runs of 64, 4 a block": ("order", "64", "4"),
    "order, runs of 256, 1 a block": ("order", "256", "1"),
    "order, own chunks of 32, 8 a block": ("order of chunks", "32"),
    "order, own chunks of 64, 8 a block": ("order of chunks", "64"),
}

INTERRUPTED = (
    "in memory",
    "memory map",
    "slow",
    "in memory, 32 filters",
    "in memory, 8 x 8",
)
N_INTERRUPTIONS = 5
# Maximum delay between the start of training and Ctrl-C.
MAX_SECONDS = 20.0


def make_images(path: Path) -> None:
    """Write images of noise to a file."""
    shape = (N_IMAGES, SIZE, SIZE)
    images = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    for start in range(0, N_IMAGES, N_TOGETHER):
        images[start : start + N_TOGETHER] = random_images(N_TOGETHER, SIZE)


def start_case(path: Path, measure: str, *arguments: str) -> subprocess.Popen:
    """Start a process that measures a case."""
    return subprocess.Popen(  # noqa: S603 - a script of this folder
        [sys.executable, FOLDER / "case.py", measure, path, *arguments],
        env=os.environ | QUIET,
        stdout=subprocess.PIPE,
        text=True,
    )


def measure(path: Path, case: tuple[str, ...]) -> dict[str, float]:
    """Measure a case in a new process."""
    with start_case(path, *case) as process:
        return json.load(process.stdout)


def measure_interruptions(path: Path, source: str) -> dict[str, float]:
    """Send SIGINT at random moments and measure the time until `fit` returns."""
    moments = random.Random(0)  # noqa: S311 - not for cryptography
    delays = []
    with start_case(path, "interrupt", source, str(N_INTERRUPTIONS)) as process:
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
    """Read the output of a process up to a line that begins with a word."""
    for line in process.stdout:
        if line.startswith(word):
            return line
    msg = f"The process ended before it printed {word!r}."
    raise RuntimeError(msg)


def write_csv(results: dict[str, dict[str, float]], path: Path) -> None:
    """Write machine and versions, then one line per case and unit."""
    with path.open("w", newline="") as file:
        file.writelines(f"{line}\n" for line in machine_lines())
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "unit", "number"])
        for case, numbers in results.items():
            for unit, number in numbers.items():
                writer.writerow([case, unit, f"{number:.4g}"])


def main() -> None:
    """Run all measurements, print each case and write the csv file."""
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
