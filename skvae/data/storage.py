"""Out-of-core arrays, read in chunks. Needs numpy only.

An array needs `shape`, a numpy `dtype` and slicing: memory maps, h5py datasets, zarr
and dask arrays have them. Reads are runs of neighbouring rows, which files return
fastest. An array that has chunks of its own, which it decompresses or computes as a
whole, is read by these. Values are validated when they are read.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from numbers import Integral
from typing import Any, Protocol

import numpy as np

# Maximum size of a chunk, unless a single image or a chunk of the array is larger.
_CHUNK_BYTES = 2**20

# Maximum size of a chunk of the array that is read as a whole, and number of those that
# are kept: batches and runs that overlap with two of them alternate.
_OWN_CHUNK_BYTES = 2**27
_N_KEPT = 2

# Chunks of the array of this part of a chunk, or less, are not aligned with it: little
# is read twice.
_SMALL_CHUNK = 0.25

# A sample of the images has at most about this many bytes, in so many runs.
_SAMPLE_BYTES = 2**20
_N_RUNS = 16


class ReadingStopped(Exception):  # noqa: N818  no error, and seen by no user
    """Raised where images are read that are not wanted any more."""


class StoredArray(Protocol):
    """Interface of an out-of-core array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, followed by the shape of one row."""

    @property
    def dtype(self) -> np.dtype:
        """Data type, as a numpy dtype."""

    def __getitem__(self, rows: slice, /) -> Any:
        """Read a slice of rows as an array."""


def chunk_length(images: np.ndarray | StoredImages) -> int:
    """Number of images in a chunk of an array of shape (n, H, W, C)."""
    return max(1, _CHUNK_BYTES // image_bytes(images))


def image_bytes(images: np.ndarray | StoredImages | Selection) -> int:
    """Size of one image in bytes; at least 1, also if it has no pixels."""
    return max(1, images.dtype.itemsize * math.prod(images.shape[1:]))


def chunks(images: np.ndarray | StoredImages) -> Iterator[np.ndarray]:
    """Read images (n, H, W, C) in chunks."""
    length = chunk_length(images)
    for start in range(0, len(images), length):
        yield images[start : start + length]


def sample_images(images: np.ndarray | StoredImages | Selection) -> np.ndarray:
    """Runs of neighbouring images from all over the data."""
    n_run = max(1, min(_SAMPLE_BYTES // _N_RUNS, _CHUNK_BYTES) // image_bytes(images))
    last = len(images) - n_run
    if last < _N_RUNS * n_run:
        starts = np.arange(0, len(images), n_run)
    else:
        starts = np.linspace(0, last, _N_RUNS).astype(int)
    # Copied, because a run may be a view of a large chunk.
    return np.concatenate([images[start : start + n_run].copy() for start in starts])


def is_stored(X: Any) -> bool:
    """Check if X is out-of-core: a memory map, or a foreign array of numpy dtype."""
    if isinstance(X, np.ndarray):
        return _memory_map(X) is not None
    # Excludes data frames, which have no dtype, and sparse matrices.
    is_sliceable = hasattr(X, "__getitem__") and not hasattr(X, "tocsr")
    return is_sliceable and isinstance(getattr(X, "dtype", None), np.dtype)


class StoredImages:
    """Out-of-core images of shape (n, H, W, C), read by slice or index array.

    Errors raised while reading have a note with the row numbers.

    Parameters
    ----------
    array : array-like with shape, dtype and slicing
        Images in the caller's layout.
    to_images : callable
        Validates a chunk in the caller's layout and reshapes it to (n, H, W, C).
    image_shape : (H, W, C)
        Shape of one image.
    """

    def __init__(
        self,
        array: StoredArray,
        to_images: Callable[[np.ndarray], np.ndarray],
        image_shape: tuple[int, ...],
    ) -> None:
        self._array = array
        self._to_images = to_images
        self.shape = (int(array.shape[0]), *image_shape)
        self.dtype = array.dtype
        own = _own_chunks(array)
        most = max(1, _OWN_CHUNK_BYTES // image_bytes(self))
        # First rows of the runs of rows that are read together.
        self.starts = _run_starts(own, len(self), chunk_length(self), most)
        self._ends = np.append(self.starts[1:], len(self))
        self.has_chunks = bool(own)
        self._kept: dict[int, np.ndarray] = {}
        # Some storages do not support concurrent reads.
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """Read a run of rows, or the rows of an index array in any order."""
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self))
            return self._read(start, stop)
        return self.gather(key)

    def gather(
        self, key: np.ndarray, is_wanted: Callable[[], bool] = lambda: True
    ) -> np.ndarray:
        """Read the rows of an index array.

        Parameters
        ----------
        key : ndarray of int of shape (n_rows,)
        is_wanted : callable
            Called before each chunk. Returns False to stop reading.

        Returns
        -------
        ndarray of shape (n_rows, H, W, C)

        Raises
        ------
        ReadingStopped
            If `is_wanted` returns False.
        """
        images = np.empty((len(key), *self.shape[1:]), self.dtype)
        for places in self._by_chunk(key):
            if not is_wanted():
                raise ReadingStopped
            rows = key[places]
            start = int(rows.min())
            images[places] = self._read(start, int(rows.max()) + 1, rows - start)
        return images

    def _by_chunk(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the positions of each chunk's rows in an index array."""
        if len(rows) == 0:
            return
        runs = np.searchsorted(self.starts, rows, side="right")
        places = np.argsort(runs, kind="stable")
        ends = np.flatnonzero(np.diff(runs[places])) + 1
        yield from np.split(places, ends)

    def _read(
        self, start: int, stop: int, places: np.ndarray | None = None
    ) -> np.ndarray:
        """Read a run of rows, or only those at some places in it."""
        try:
            check_file(self._array)
            with self._lock:
                if self.has_chunks:
                    rows = self._rows_of_chunks(start, stop)
                    rows = rows if places is None else rows[places]
                else:
                    rows = self._load(start, stop, places)
            return self._to_images(rows)
        except Exception as error:
            first, last = start, stop - 1
            if isinstance(self._array, StoredRows):
                first, last = self._array.source_rows[[first, last]]
            error.add_note(f"while reading rows {first} to {last} of X")
            raise

    def _rows_of_chunks(self, start: int, stop: int) -> np.ndarray:
        """Rows of an array that has chunks of its own, which are read as a whole."""
        parts = []
        begin = int(np.searchsorted(self.starts, start, side="right")) - 1
        for i in range(begin, int(np.searchsorted(self.starts, stop))):
            first, last = int(self.starts[i]), int(self._ends[i])
            if i not in self._kept:
                if len(self._kept) == _N_KEPT:  # before there is another one
                    del self._kept[next(iter(self._kept))]
                self._kept[i] = self._load(first, last)
            part = slice(max(start, first) - first, min(stop, last) - first)
            parts.append(self._kept[i][part])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _load(
        self, start: int, stop: int, places: np.ndarray | None = None
    ) -> np.ndarray:
        """Rows as the array gives them.

        The slice of a memory map is lazy: its other rows are not read from disk.
        """
        run = self._array[start:stop]
        n_rows = len(run)
        if places is not None and n_rows == stop - start:
            run = run[places]
        # The conversion of a dask array would drop its mask.
        computed = run.compute() if hasattr(run, "compute") else run
        rows = np.asanyarray(computed)
        if np.ma.is_masked(rows):
            msg = "X has masked values. Replace them before they are read."
            raise ValueError(msg)
        rows = np.asarray(rows)
        if n_rows != stop - start or rows.dtype != self.dtype:
            msg = (
                f"Expected {stop - start} rows of dtype {self.dtype}, got {n_rows} "
                f"of {rows.dtype}. The data behind X has changed."
            )
            raise ValueError(msg)
        return rows


class Selection:
    """Selected rows of images (n, H, W, C), read when they are sliced.

    Parameters
    ----------
    images : ndarray, StoredImages or Selection of shape (n, H, W, C)
    rows : ndarray of int of shape (n_rows,), or range with step 1
    is_wanted : callable
        Called before each read. Returns False to stop reading.
    """

    def __init__(
        self,
        images: np.ndarray | StoredImages | Selection,
        rows: np.ndarray | range,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._images = images
        self._rows = rows
        self._is_wanted = is_wanted
        self.shape: tuple[int, ...] = (len(rows), *images.shape[1:])
        self.dtype: np.dtype = images.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a part of the selected rows.

        Raises
        ------
        ReadingStopped
            If they are not wanted any more.
        """
        if not self._is_wanted():
            raise ReadingStopped
        rows = self._rows[key]
        if isinstance(rows, range):
            return self._images[rows.start : rows.stop]
        return self._images[rows]


class StoredRows(Selection):
    """Selected rows of an out-of-core array, as an out-of-core array in its layout.

    Parameters
    ----------
    array : array-like with shape, dtype and slicing
    rows : ndarray of int of shape (n_rows,)
        In ascending order, so that neighbours are read together.
    """

    def __init__(self, array: StoredArray, rows: np.ndarray) -> None:
        stored = StoredImages(array, lambda part: part, tuple(array.shape[1:]))
        super().__init__(stored, rows)
        self.source_rows = rows
        if stored.has_chunks:
            # The rows that are selected of each run, so that it is read once.
            firsts = np.searchsorted(rows, stored.starts)
            n_rows = np.diff(firsts, append=len(rows)).tolist()
            self.chunks = (tuple(n_rows), *stored.shape[1:])


def check_file(array: Any) -> None:
    """Check that the file of a memory map, or of a view of one, is not truncated.

    Access beyond the end of a truncated file would kill the process.

    Parameters
    ----------
    array : array-like
        Anything but a memory map or a view of one passes.

    Raises
    ------
    OSError
        If the file is shorter than when it was opened.
    """
    memory_map = _memory_map(array)
    if memory_map is None:
        return
    mapped: Any = memory_map
    while isinstance(mapped, np.ndarray):
        mapped = mapped.base
    if not isinstance(mapped, mmap.mmap):
        return
    # A map starts at a page boundary.
    start = memory_map.offset - memory_map.offset % mmap.ALLOCATIONGRANULARITY
    if mapped.size() < start + len(mapped):
        msg = f"The file {memory_map.filename} is shorter than when it was opened."
        raise OSError(msg)


def _memory_map(array: Any) -> np.memmap | None:
    """Return the memory map that an array is, or is a view of, else None."""
    if not isinstance(array, np.ndarray):
        return None
    # The base of numpy's views with other strides is no array, but has a base.
    while array is not None and not isinstance(array, np.memmap):
        array = getattr(array, "base", None)
    return array


def _own_chunks(array: StoredArray) -> tuple[int, ...]:
    """Numbers of rows in the array's own chunks, as h5py, zarr and dask have them.

    Returns
    -------
    tuple of int
        One number if it is that of all chunks but the last; empty without chunks.
    """
    chunks = getattr(array, "chunks", None)
    if not isinstance(chunks, tuple) or len(chunks) != len(array.shape):
        return ()
    rows = chunks[0] if isinstance(chunks[0], tuple) else chunks[:1]
    if not all(isinstance(n, Integral) for n in rows):
        return ()
    lengths = tuple(n for n in map(int, rows) if n > 0)
    return lengths if len(lengths) == 1 or sum(lengths) == array.shape[0] else ()


def _run_starts(own: tuple[int, ...], n_rows: int, least: int, most: int) -> np.ndarray:
    """First rows of the runs of rows that are read together.

    A run has as many of the array's own chunks as there are within `least` rows, but
    one at least. Chunks of more than `most` rows are split, and small ones ignored.

    Parameters
    ----------
    own : tuple of int
        Numbers of rows in the array's own chunks, or the one of all of them, or none.
    n_rows, least, most : int
        Numbers of rows.

    Returns
    -------
    ndarray of int of shape (n_runs,)
    """
    if not own or max(own) <= least * _SMALL_CHUNK:
        return np.arange(0, n_rows, least)
    if len(own) == 1 and own[0] <= most:
        return np.arange(0, n_rows, own[0] * max(1, least // own[0]))
    if len(own) == 1:
        own *= math.ceil(n_rows / own[0])
    starts = [0]
    for first, end in pairwise(accumulate(own, initial=0)):
        if first > starts[-1] and end - starts[-1] > least:
            starts.append(first)
        starts.extend(range(first + most, min(end, n_rows), most))
    return np.array(starts)
