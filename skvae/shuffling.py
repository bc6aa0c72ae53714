"""The order in which an epoch's images are trained on, and reading ahead in it.

Stored images are read in runs of neighbouring rows. So the runs of an epoch are put in
a random order and gathered in blocks of some sixty, and the rows of each block are put
in a random order: the images of a batch come from runs all over the data. Where all
images fit one block, or one run, that is a full shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from skvae.storage import StoredImages, chunk_length, image_bytes

# Images that are shuffled together have about this many bytes; as many are read ahead.
_BLOCK_BYTES = 2**26


def shuffled_blocks(
    images: np.ndarray | StoredImages,
    rows: np.ndarray,
    batch_size: int,
    rng: np.random.Generator,
    choose: Callable[[np.ndarray], np.ndarray],
) -> Iterator[tuple[int, np.ndarray]]:
    """Gather the images of an epoch in blocks, each while the one before is in use.

    Parameters
    ----------
    images : (n, H, W, C)
    rows : (n_rows,) of int
        The images to use, in ascending order.
    batch_size : int
        The blocks, but for the last, have a multiple of so many images.
    rng : Generator
        What the order depends on, besides `rows` and the images' size and dtype.
    choose : callable
        Gives those rows of a block that are read.

    Yields
    ------
    n_block : int
        How many images the block has.
    images : (n_chosen, H, W, C)
        Those that were chosen of them.
    """
    n_batches = max(1, _BLOCK_BYTES // (image_bytes(images) * batch_size))
    order = _shuffled_runs(rows, chunk_length(images), rng)
    starts = range(0, len(order), n_batches * batch_size)
    blocks = [
        rng.permutation(order[start : start + n_batches * batch_size])
        for start in starts
    ]
    reader = ThreadPoolExecutor(1)
    try:
        following = reader.submit(images.__getitem__, choose(blocks[0]))
        for block, next_block in pairwise(blocks):
            current = following
            following = reader.submit(images.__getitem__, choose(next_block))
            yield len(block), current.result()
        yield len(blocks[-1]), following.result()
    finally:
        # Who stops early does not wait for what is being read.
        reader.shutdown(wait=False, cancel_futures=True)


def _shuffled_runs(
    rows: np.ndarray, run_length: int, rng: np.random.Generator
) -> np.ndarray:
    """Put the runs that ascending rows make in a random order."""
    ends = np.flatnonzero(np.diff(rows // run_length)) + 1
    runs = np.split(rows, ends)
    return np.concatenate([runs[i] for i in rng.permutation(len(runs))])
