"""Shuffling of the training samples of an epoch, with read-ahead.

Out-of-core arrays are read in runs of neighbouring rows. In each epoch the runs are
shuffled and gathered in blocks of 64 MB, and the rows of each block are shuffled.
The images of a batch thus come from all over the data. If all images fit in one block,
or in one run, this is a full shuffle. If they do not, the chunks of an array that has
some of its own of more than 256 KB are the runs, so that each is read once. With chunks
of more than 8 MB, blocks are larger.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import numpy as np

from skvae.background import Task
from skvae.data.storage import StoredImages, chunk_length, image_bytes

# Approximate size of a block. One more block is read ahead.
_BLOCK_BYTES = 2**26

# Blocks have so many chunks of an array with large ones, within this size.
_MIN_CHUNKS = 8
_MAX_BLOCK_BYTES = 2**28


def shuffled_blocks(
    images: np.ndarray | StoredImages,
    rows: np.ndarray | range,
    batch_size: int,
    rng: np.random.Generator,
    *,
    choose: Callable[[np.ndarray], np.ndarray],
    is_wanted: Callable[[], bool],
) -> Generator[tuple[int, np.ndarray], None, None]:
    """Yield the images of an epoch in shuffled blocks, reading one block ahead.

    Parameters
    ----------
    images : ndarray or StoredImages of shape (n, H, W, C)
    rows : ndarray of int of shape (n_rows,), or range that starts at 0
        Rows of the training samples, in ascending order.
    batch_size : int
        The length of each block but the last is a multiple of it.
    rng : Generator
        Determines the order, together with `rows`, the images' shape and dtype and
        their own chunks.
    choose : callable
        Takes the rows of a block, returns those to read.
    is_wanted : callable
        Returns False to stop reading.

    Yields
    ------
    n_block : int
        Number of images in the block.
    images : ndarray of shape (n_chosen, H, W, C)
        The chosen images.

    Raises
    ------
    ReadingStopped
        If `is_wanted` returns False.
    """
    n_images, block_bytes = images.shape[0], _BLOCK_BYTES
    starts = np.arange(0, n_images, chunk_length(images))
    has_several_blocks = len(rows) * image_bytes(images) > block_bytes
    if has_several_blocks and isinstance(images, StoredImages):
        starts = images.starts
        longest = int(np.diff(starts, append=n_images).max())
        if longest > chunk_length(images):
            chunks_bytes = _MIN_CHUNKS * longest * image_bytes(images)
            block_bytes = max(block_bytes, min(chunks_bytes, _MAX_BLOCK_BYTES))
    n_batches = max(1, block_bytes // (image_bytes(images) * batch_size))
    blocks = _blocks(rows, starts, n_batches * batch_size, rng)
    is_open = True

    def read(block: np.ndarray) -> np.ndarray:
        chosen = choose(block)
        if isinstance(images, StoredImages):
            return images.gather(chosen, lambda: is_open and is_wanted())
        return images[chosen]

    block = next(blocks)
    images_read = read(block)
    reading = None
    try:
        for following in blocks:
            reading = Task(read, following)
            reading.start()
            yield len(block), images_read
            block, images_read = following, reading.result()
        yield len(block), images_read
    finally:
        is_open = False
        if reading is not None:
            reading.stop()


def _blocks(
    rows: np.ndarray | range,
    starts: np.ndarray,
    block_length: int,
    rng: np.random.Generator,
) -> Iterator[np.ndarray]:
    """Yield the rows of each block: shuffle all runs, then the rows of a block.

    Blocks are generated lazily, because the order of all rows may not fit in memory.
    """
    starts = starts[starts <= rows[-1]]
    if not isinstance(rows, range):
        starts = np.unique(np.searchsorted(rows, starts))
    lengths = np.diff(starts, append=len(rows))
    order = rng.permutation(len(starts))
    starts, lengths = starts[order], lengths[order]
    ends = np.cumsum(lengths)
    for first in range(0, len(rows), block_length):
        last = first + block_length
        # Runs that overlap with the block.
        reach = slice(
            np.searchsorted(ends, first, side="right"),
            np.searchsorted(ends, last, side="left") + 1,
        )
        runs = zip(starts[reach], lengths[reach], strict=True)
        gathered = np.concatenate([rows[start : start + n] for start, n in runs])
        skipped = first - (ends[reach][0] - lengths[reach][0])
        yield rng.permutation(gathered[skipped : skipped + block_length])
