"""Single point of the growth benchmark, which must be measured in a new process.

`python point.py COST N_IMAGES SIZE HIDDEN_LAYERS N_DRAWS` prints time and memory as
JSON. Peak memory is read from /proc, which is available on Linux only.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.common.measurement import memory, random_images, seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

# Few images, so that the warm-up does not raise the memory in use.
_N_WARM_UP = 128
_MAX_RUNS = 3
_ENOUGH_SECONDS = 10.0


def cost_of(call: Callable[[], Any], n_images: int) -> dict[str, float]:
    """Measure the median time of a few calls, and their additional peak memory."""
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    times: list[float] = []
    while len(times) < _MAX_RUNS and sum(times) < _ENOUGH_SECONDS:
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return {
        "ms an image": 1e3 * median(times) / n_images,
        "MB at the peak": memory("VmHWM") - before,
    }


def fit_cost(vae: Any, images: np.ndarray, _: int) -> dict[str, float]:
    """Measure one epoch, after a fit of the same architecture."""
    vae.fit(images[:_N_WARM_UP])
    return cost_of(lambda: vae.fit(images), len(images))


def transform_cost(vae: Any, images: np.ndarray, _: int) -> dict[str, float]:
    """Measure the encoding of all images."""
    vae.fit(images[:_N_WARM_UP]).transform(images[:_N_WARM_UP])
    return cost_of(lambda: vae.transform(images), len(images))


def score_cost(vae: Any, images: np.ndarray, n_draws: int) -> dict[str, float]:
    """Measure the scoring of all images."""
    vae.fit(images[:_N_WARM_UP]).score_samples(images[:2], n_draws=1)
    return cost_of(lambda: vae.score_samples(images, n_draws), len(images))


def first_fit_cost(vae: Any, images: np.ndarray, _: int) -> dict[str, float]:
    """Measure the additional time of a first fit, compared to a second one."""
    import_seconds = seconds_of(lambda: import_module("skvae.training.compiled"))
    first = seconds_of(lambda: vae.fit(images))
    second = seconds_of(lambda: vae.fit(images))
    # TensorFlow is already started: the difference is that of the architecture.
    vae.set_params(latent_dim=vae.latent_dim + 1)
    other_first = seconds_of(lambda: vae.fit(images))
    other_second = seconds_of(lambda: vae.fit(images))
    return {
        "s to import TensorFlow": import_seconds,
        "s more for the first fit than the second": first - second,
        "s more for another architecture's first": other_first - other_second,
    }


COSTS = {
    "fit": fit_cost,
    "transform": transform_cost,
    "score_samples": score_cost,
    "first fit": first_fit_cost,
}


def main() -> None:
    """Measure one point and print it."""
    cost, *numbers = sys.argv[1:]
    n_images, size, hidden_layers, n_draws = map(int, numbers)
    start = perf_counter()
    skvae = import_module("skvae")
    import_seconds = perf_counter() - start
    # Images of noise leave the latents unused.
    warnings.simplefilter("ignore", skvae.exceptions.PosteriorCollapseWarning)
    vae = skvae.ConvVAE(hidden_layers=hidden_layers, epochs=1, random_state=0)
    point = COSTS[cost](vae, random_images(n_images, size), n_draws)
    if cost == "first fit":
        point = {"s to import skvae": import_seconds, **point}
    json.dump(point, sys.stdout)


if __name__ == "__main__":
    main()
