"""What ConvVAE does with images that are larger than memory, and with Ctrl-C.

1. Peak of memory of `fit` (one epoch) and `transform` on a memory map of 2 GB.
2. Time an image from a memory map beside that from memory.
3. How good a network becomes whose images are sorted and read in runs, against how
   long these are and how many are shuffled together.
4. How long after Ctrl-C `fit` returns.

In a checkout on Linux, with nothing else to do, some 35 minutes on 2 cores:

    pip install -e '.[benchmarks]'
    python benchmarks/storage.py

writes storage.csv beside this file, and prints the table. It needs 2 GB of disk for a
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

# What is measured, and the arguments that say of what.
Case = tuple[str, ...]

CASES: tuple[Case, ...] = (
    ("memory", "fit", "64"),  # images a batch
    ("memory", "fit", "256"),
    ("memory", "transform", "64"),
    ("time", "fit"),
    ("time", "transform"),
    # Rows a run, and runs a block. All rows fit the first one's; the library's own
    # blocks have 64 runs.
    ("order", "2048", "1"),
    ("order", "4", "64"),
    ("order", "16", "16"),
    ("order", "64", "4"),
    ("order", "256", "1"),
)

N_INTERRUPTIONS = 5
INTERRUPTED = (
    "in memory",
    "memory map",
    "slow",
    "in memory, 32 filters",
    "in memory, 8 x 8",
)
# After training began.
MAX_SECONDS = 20.0

# A number a unit.
Results = dict[Case, dict[str, float]]


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


def measure(path: Path, case: Case) -> dict[str, float]:
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


def write_csv(results: Results, path: Path) -> None:
    """One line a case and unit, below the machine's."""
    with path.open("w", newline="") as file:
        file.writelines(f"{line}\n" for line in machine_lines())
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["measure", "case", "unit", "number"])
        for (name, *arguments), numbers in results.items():
            for unit, number in numbers.items():
                writer.writerow([name, " x ".join(arguments), unit, f"{number:.4g}"])


def print_table(results: Results) -> None:
    """A line a case."""
    for case, numbers in results.items():
        figures = ", ".join(f"{number:.3g} {unit}" for unit, number in numbers.items())
        print(f"{' '.join(case):<32}{figures}")


def main() -> None:
    """Measure all, and write csv and table."""
    start_time = time.perf_counter()
    results: Results = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        make_images(path)
        for case in CASES:
            print(f"{time.perf_counter() - start_time:5.0f} s  {' '.join(case)}")
            results[case] = measure(path, case)
        for source in INTERRUPTED:
            print(f"{time.perf_counter() - start_time:5.0f} s  interrupt {source}")
            results["interrupt", source] = measure_interruptions(path, source)
    print(f"{time.perf_counter() - start_time:5.0f} s  done")
    write_csv(results, FOLDER / "storage.csv")
    print_table(results)


if __name__ == "__main__":
    main()
