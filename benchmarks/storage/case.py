"""Single case of the storage benchmark, which must be measured in a new process.

`python case.py MEASURE FILE ARGUMENTS...` reads images from a file and prints results
as JSON. Memory is read from /proc, which is available on Linux only.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import tracemalloc
import warnings
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from benchmarks.common.measurement import memory, random_images, seconds_of
from skvae import ConvVAE
from skvae.exceptions import PosteriorCollapseWarning
from skvae.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable

# Smallest network, so that time and memory are mainly those of the images.
_SMALL = {"filters": 1, "latent_dim": 2, "epochs": 1, "random_state": 0}
_DIGITS = {"latent_dim": 8, "filters": 32, "hidden_layers": 2, "epochs": 40}

_N_WARM_UP = 1024
_N_EPOCHS_AGAIN = 32
_SAMPLE_SECONDS = 0.02

_N_TIMED = 8192
_N_TURNS = 3

_N_SEEDS = 8

# Two blocks: the second one is read while training uses the first one.
_N_INTERRUPTED = 8192
_SECONDS_A_MB = 0.2


def peak_above_now(call: Callable[[], Any]) -> dict[str, float]:
    """Measure the rise of anonymous memory in a call, and the part of arrays in it.

    Pages of mapped files are not included: the system frees them when necessary.
    """
    tracemalloc.start()
    before = memory("RssAnon")
    samples = [before]
    is_over = threading.Event()

    def sample() -> None:
        while not is_over.wait(_SAMPLE_SECONDS):
            samples.append(memory("RssAnon"))

    sampler = threading.Thread(target=sample)
    sampler.start()
    call()
    is_over.set()
    sampler.join()
    return {
        "MB at the peak": max(samples) - before,
        "MB of arrays at the peak": tracemalloc.get_traced_memory()[1] / 2**20,
    }


def memory_cost(path: Path, method: str, batch_size: str) -> dict[str, float]:
    """Measure peak memory of a call on all images, after calls on the first ones."""
    images = np.load(path, mmap_mode="r")
    vae = ConvVAE(**_SMALL, batch_size=int(batch_size))
    vae.fit(images[:_N_WARM_UP]).transform(images[:_N_WARM_UP])
    if method == "fit again":
        vae.set_params(epochs=_N_EPOCHS_AGAIN)
        images, method = images[:_N_WARM_UP], "fit"
    if method == "fit":
        return peak_above_now(lambda: vae.fit(images))
    out = np.lib.format.open_memmap(
        path.with_name("out.npy"), "w+", np.float32, (len(images), vae.latent_dim)
    )
    return peak_above_now(lambda: vae.transform(images, out=out))


def time_cost(path: Path, method: str) -> dict[str, float]:
    """Measure median times of calls on images in memory and on a memory map."""
    stored = np.load(path, mmap_mode="r")[:_N_TIMED]
    sources = {"in memory": np.array(stored), "memory map": stored}
    vae = ConvVAE(**_SMALL)
    for images in sources.values():
        vae.fit(images[:_N_WARM_UP]).transform(images[:_N_WARM_UP])
    call = getattr(vae, method)
    times: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(_N_TURNS):
        for name, images in sources.items():
            times[name].append(seconds_of(lambda images=images: call(images)))
    return {
        f"ms an image, {name}": 1e3 * median(seconds) / _N_TIMED
        for name, seconds in times.items()
    }


class Chunked:
    """Array with chunks of its own."""

    def __init__(self, array: np.ndarray, chunk_length: int) -> None:
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.chunks = (chunk_length, *array.shape[1:])

    def __getitem__(self, key: slice) -> np.ndarray:
        return self._array[key]


def order_quality(_: Path, run_length: str, n_runs: str) -> dict[str, float]:
    """Compute the held-out score of sorted digits that are read in runs."""
    return _score_of_sorted(lambda X: X, int(run_length), int(n_runs))


def chunks_quality(_: Path, chunk_length: str) -> dict[str, float]:
    """Compute the held-out score of sorted digits with chunks of their own.

    A block has as many chunks as it has of large images.
    """
    return _score_of_sorted(lambda X: Chunked(X, int(chunk_length)), 4, 16)


def _score_of_sorted(
    make_source: Callable[[np.ndarray], Any], run_length: int, n_runs: int
) -> dict[str, float]:
    """Compute the held-out score of digits that are sorted by class."""
    X, y = load_digits(return_X_y=True)
    X = (X * 255 / 16).round().astype(np.uint8)
    X_train, X_test, y_train, _ = train_test_split(X, y, random_state=0)
    source = make_source(X_train[np.argsort(y_train, kind="stable")])
    # Few small images stand for many large ones: reduce the bytes of runs and blocks,
    # which are not parameters.
    n_bytes = run_length * X.shape[1]
    with (
        patch("skvae.data.storage._CHUNK_BYTES", n_bytes),
        patch("skvae.data.shuffling._BLOCK_BYTES", n_bytes * n_runs),
    ):
        scores = [
            ConvVAE(**_DIGITS, random_state=seed).fit(source).score(X_test)
            for seed in range(_N_SEEDS)
        ]
    # Density of images scaled to [0, 1].
    scores = np.add(scores, X.shape[1] * np.log(255))
    return {
        "nats, mean": scores.mean(),
        "nats, standard error": scores.std(ddof=1) / np.sqrt(_N_SEEDS),
    }


class SlowImages:
    """Images that are read slowly, as over a network."""

    def __init__(self, images: np.ndarray) -> None:
        self._images = images
        self.shape, self.dtype = images.shape, images.dtype

    def __getitem__(self, key: slice) -> np.ndarray:
        part = self._images[key]
        time.sleep(_SECONDS_A_MB * part.nbytes / 2**20)
        return part


# Source of images and parameters of the network.
_INTERRUPTED: dict[str, tuple[Callable[[np.ndarray], Any], dict[str, Any]]] = {
    "in memory": (np.array, {}),
    "memory map": (lambda stored: stored, {}),
    "slow": (SlowImages, {}),
    "in memory, 32 filters": (np.array, {"filters": 32}),
    "in memory, 8 x 8": (lambda _: random_images(2**17, 8), _DIGITS),
}


def interrupted_fits(path: Path, case: str, n_fits: str) -> dict[str, float]:
    """Fit repeatedly until interrupted, and measure the duration of graph calls.

    Prints a line before each graph call, and one with the time after each fit.
    """
    make_source, params = _INTERRUPTED[case]
    source = make_source(np.load(path, mmap_mode="r")[:_N_INTERRUPTED])
    vae = ConvVAE(**params, random_state=0)
    # Trace the graphs.
    vae.set_params(epochs=1).fit(source[:_N_WARM_UP])
    vae.set_params(epochs=1000)
    # Processes that a shell starts in the background ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train_steps = Trainer.train_steps
    durations = []

    def announced(*args: Any, **kwargs: Any) -> Any:
        print("training", flush=True)
        start = time.perf_counter()
        sums = train_steps(*args, **kwargs)
        durations.append(time.perf_counter() - start)
        return sums

    with patch.object(Trainer, "train_steps", announced):
        for _ in range(int(n_fits)):
            with suppress(KeyboardInterrupt):  # raised once the estimator is fitted
                vae.fit(source)
            print("returned", time.time(), flush=True)
    return {"s a graph call, median": median(durations)}


MEASURES = {
    "memory": memory_cost,
    "time": time_cost,
    "order": order_quality,
    "order of chunks": chunks_quality,
    "interrupt": interrupted_fits,
}


def main() -> None:
    """Measure one case and print it."""
    measure, path, *arguments = sys.argv[1:]
    # Images of noise leave the latents unused.
    warnings.simplefilter("ignore", PosteriorCollapseWarning)
    print(json.dumps(MEASURES[measure](Path(path), *arguments)))


if __name__ == "__main__":
    main()
