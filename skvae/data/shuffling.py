"""The order in which an epoch's images are trained on, and reading ahead in it.

Stored images are read in runs of neighbouring rows. So the runs of an epoch are put in
a random order and gathered in blocks of some sixty, and the rows of each block are put
in a random order: the images of a batch come from runs all over the data. Where all
images fit one block, or one run, that is a full shuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from skvae.data.storage import StoredImages, chunk_length, image_bytes

# Images that are shuffled together have about this many bytes; as many are read ahead.
_BLOCK_BYTES = 2**26


def shuffled_blocks(
    images: np.ndarray | StoredImages,
    rows: np.ndarray | range,
    batch_size: int,
    rng: np.random.Generator,
    *,
    choose: Callable[[np.ndarray], np.ndarray],
    is_wanted: Callable[[], bool],
) -> Generator[tuple[int, np.ndarray], None, None]:
    """Gather the images of an epoch in blocks, each while the one before is in use.

    Parameters
    ----------
    images : array-like of shape (n, H, W, C)
    rows : ndarray of int of shape (n_rows,), or range from 0
        Images to use, in ascending order.
    batch_size : int
        All blocks but the last have a multiple of so many images.
    rng : Generator
        Determines the order, with `rows` and the size and dtype of the images.
    choose : callable
        Returns the rows of a block to read.
    is_wanted : callable
        Returns whether to go on reading.

    Yields
    ------
    n_block : int
        Number of images in the block.
    images : ndarray of shape (n_chosen, H, W, C)
        The chosen images.

    Raises
    ------
    CancelledError
        If they are not wanted any more.
    """
    n_batches = max(1, _BLOCK_BYTES // (image_bytes(images) * batch_size))
    blocks = _blocks(rows, chunk_length(images), n_batches * batch_size, rng)
    is_open = True

    def read(rows: np.ndarray) -> np.ndarray:
        if isinstance(images, StoredImages):
            return images.gather(rows, lambda: is_open and is_wanted())
        return images[rows]

    def read_ahead(block: np.ndarray) -> tuple[int, Future[np.ndarray]]:
        return len(block), reader.submit(read, choose(block))

    with ThreadPoolExecutor(1) as reader:
        try:
            following = read_ahead(next(blocks))
            for block in blocks:
                n_block, reading = following
                following = read_ahead(block)
                yield n_block, reading.result()
            n_block, reading = following
            yield n_block, reading.result()
        finally:
            is_open = False


def _blocks(
    rows: np.ndarray | range,
    run_length: int,
    block_length: int,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Put the runs that ascending rows make in a random order, and the rows of a block.

    A block is made when it is asked for: there may be more rows than memory is for.
    """
    starts = np.arange(0, rows[-1] + 1, run_length)
    if not isinstance(rows, range):
        starts = np.unique(np.searchsorted(rows, starts))
    lengths = np.diff(starts, append=len(rows))
    order = rng.permutation(len(starts))
    starts, lengths = starts[order], lengths[order]
    ends = np.cumsum(lengths)
    for first in range(0, len(rows), block_length):
        last = first + block_length
        # The runs of which a part is in the block.
        reach = slice(
            np.searchsorted(ends, first, side="right"),
            np.searchsorted(ends, last, side="left") + 1,
        )
        runs = zip(starts[reach], lengths[reach], strict=True)
        gathered = np.concatenate([rows[start : start + n] for start, n in runs])
        skipped = first - (ends[reach][0] - lengths[reach][0])
        yield rng.permutation(gathered[skipped : skipped + block_length])
