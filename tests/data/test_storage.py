"""Images that are not in memory are read in parts, and results may be written so."""

import time
import tracemalloc

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from helpers import TINY, assert_same_fit

from skvae import ConvVAE
from skvae.data.storage import (
    Selection,
    StoredImages,
    StoredRows,
    is_stored,
    sample_images,
)
from skvae.serving.sessions import FittedNetwork
from skvae.training.trainer import Trainer

N_PIXELS = 64


def as_memory_map(array, path):
    np.save(path / "images.npy", array)
    return np.load(path / "images.npy", mmap_mode="r")


def as_view_of_memory_map(array, path):
    with (path / "images.raw").open("wb") as file:
        file.write(b"a header")
        np.concatenate([array[:3], array, array[:2]]).tofile(file)
    shape = (len(array) + 5, *array.shape[1:])
    mapped = np.memmap(path / "images.raw", array.dtype, "r", offset=8, shape=shape)
    return mapped[3:-2]


def as_h5py(array, path):
    file = h5py.File(path / "images.h5", "w")
    return file.create_dataset("images", data=array, chunks=(1, *array.shape[1:]))


def as_zarr(array, path):
    stored = zarr.create_array(
        str(path / "images.zarr"),
        shape=array.shape,
        dtype=array.dtype,
        chunks=(1, *array.shape[1:]),
    )
    stored[:] = array
    return stored


class Slices:
    """Nothing but `shape`, `dtype` and slicing, and a list of what was read."""

    def __init__(self, array):
        self.shape, self.dtype = array.shape, array.dtype
        self.array, self.lengths = array, []

    def __getitem__(self, key):
        assert isinstance(key, slice)
        part = self.array[key]
        self.lengths.append(len(part))
        return part


STORAGES = [as_memory_map, as_view_of_memory_map, as_h5py, as_zarr]


@pytest.fixture
def small_parts(monkeypatch):
    """Runs of 4 images, and blocks of 16, of 64 bytes each."""
    monkeypatch.setattr("skvae.data.storage._CHUNK_BYTES", 4 * N_PIXELS)
    monkeypatch.setattr("skvae.data.shuffling._BLOCK_BYTES", 16 * N_PIXELS)


@pytest.fixture
def bytes_(images):
    """(70, 8, 8) uint8."""
    return np.round(images * 255).astype(np.uint8)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("store", [*STORAGES, lambda array, _: Slices(array)])
@pytest.mark.parametrize(
    "params",
    [{}, {"early_stopping": True, "validation_fraction": 0.3}],
    ids=["", "early stopping"],
)
def test_what_is_stored_gives_the_bits_of_what_is_in_memory(
    bytes_, tmp_path, store, params
):
    vae = ConvVAE(**TINY).set_params(**params, batch_size=8)
    stored = store(bytes_, tmp_path)
    in_memory, from_storage = vae.fit(bytes_), ConvVAE(**vae.get_params()).fit(stored)
    assert_same_fit(in_memory, from_storage)
    np.testing.assert_array_equal(in_memory.latent_kl_, from_storage.latent_kl_)
    for method in ("transform", "score_samples"):
        np.testing.assert_array_equal(
            getattr(from_storage, method)(stored), getattr(in_memory, method)(bytes_)
        )


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("shape", [(70, 64), (70, 4, 16), (70, 4, 4, 4)])
@pytest.mark.parametrize("dtype", ["bool", ">u2", "f2", "f8"])
def test_stored_images_of_any_layout_and_dtype(bytes_, tmp_path, shape, dtype):
    array = bytes_.reshape(shape).astype(dtype)
    stored = as_memory_map(array, tmp_path)
    vae = ConvVAE(**TINY)
    assert_same_fit(ConvVAE(**TINY).fit(array), vae.fit(stored))
    assert vae.inverse_transform(vae.transform(stored)).shape == shape
    assert vae.n_features_in_ == 64


class Chunks:
    """An array with chunks of its own, which counts how often each is read."""

    def __init__(self, array, length, *, is_like_dask=False):
        self.shape, self.dtype = array.shape, array.dtype
        self.array, self.length = array, length
        n_chunks = -(-len(array) // length)
        lengths = (length,) * (n_chunks - 1) + (len(array) - (n_chunks - 1) * length,)
        self.chunks = (lengths if is_like_dask else length, *array.shape[1:])
        self.n_reads = np.zeros(n_chunks, int)

    def __getitem__(self, key):
        self.n_reads[key.start // self.length : -(-key.stop // self.length)] += 1
        return self.array[key]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("is_like_dask", [False, True])
@pytest.mark.parametrize("length", [2, 5, 7, 16, 35, 70])
def test_chunks_of_an_array_are_read_once_a_pass(bytes_, length, is_like_dask):
    stored = Chunks(bytes_, length, is_like_dask=is_like_dask)
    params = {**TINY, "batch_size": 4, "value_range": (0, 255)}
    n_passes = {}
    for epochs in (1, 5):
        stored.n_reads[:] = 0
        vae = ConvVAE(**{**params, "epochs": epochs}).fit(stored)
        n_passes[epochs] = stored.n_reads.sum()
    # Chunks at the end of a block are read for the next one, too.
    an_epoch = (n_passes[5] - n_passes[1]) / 4 / len(stored.n_reads)
    assert an_epoch <= (1 if length in (16, 35, 70) else 2)
    stored.n_reads[:] = 0
    transformed = vae.transform(stored)
    assert stored.n_reads.max() <= 2  # one for the check of units
    np.testing.assert_array_equal(transformed, vae.transform(bytes_))
    again = ConvVAE(**{**params, "epochs": 5}).fit(stored)
    assert_same_fit(again, vae)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    "lengths", [(3, 7, 7, 7, 7, 7, 7, 7, 7, 7, 4), (16, 4, 1, 9, 0, 30, 10), (1,) * 70]
)
def test_blocks_of_any_lengths_are_read_once_a_pass(bytes_, lengths):
    class Blocks:
        shape, dtype = bytes_.shape, bytes_.dtype
        chunks = (lengths, (8,), (8,))
        n_reads = np.zeros(len(lengths))

        def __getitem__(self, key):
            starts = np.cumsum([0, *lengths[:-1]])
            self.n_reads += (starts < key.stop) & (starts + lengths > key.start)
            return bytes_[key]

    params = {**TINY, "batch_size": 70, "value_range": (0, 255)}
    vae, stored = ConvVAE(**params, warm_start=True), Blocks()
    vae.fit(stored)
    n_reads = {}
    for epochs in (1, 5):
        stored.n_reads[:] = 0
        vae.set_params(epochs=epochs).fit(stored)
        n_reads[epochs] = stored.n_reads.copy()
    assert ((n_reads[5] - n_reads[1]) / 4).max() <= 1


@pytest.mark.parametrize(
    "chunks",
    [
        (float("nan"), 8, 8),
        (None, 8, 8),
        ("auto", 8, 8),
        ([7, 63], [8], [8]),
        ((), (8,), (8,)),
        ((float("nan"), float("nan")), (8,), (8,)),
        ((30, 30), (8,), (8,)),
        (0, 8, 8),
        (10**9, 8, 8),
        7,
        None,
    ],
)
def test_chunks_that_are_no_numbers_of_rows_do_not_matter(bytes_, chunks):
    stored = Chunks(bytes_, 70)
    stored.chunks = chunks
    assert_same_fit(ConvVAE(**TINY).fit(stored), ConvVAE(**TINY).fit(bytes_))


def test_a_sample_of_large_chunks_takes_no_more_memory_than_it_has():
    chunk = np.zeros((2**10, 64, 64), np.uint8)  # 4 MB

    class Large:
        shape, dtype = (2**14, 64, 64), chunk.dtype
        chunks = chunk.shape

        def __getitem__(self, key):
            return chunk[: key.stop - key.start].copy()

    tracemalloc.start()
    sample = sample_images(StoredImages(Large(), lambda x: x[..., None], (64, 64, 1)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(sample) == 256
    assert peak < 2 * sample.nbytes + 3 * chunk.nbytes


@pytest.mark.usefixtures("small_parts")
def test_chunks_larger_than_a_batch_are_read_once(bytes_, monkeypatch):
    vae = ConvVAE(**TINY).fit(bytes_)
    expected = vae.transform(bytes_)
    monkeypatch.setattr(FittedNetwork, "images_at_once", 3)
    # A thread that has to wait may read a chunk again.
    monkeypatch.setattr("skvae.serving.batches.n_cores", lambda: 1)
    for length in (7, 16, 35):
        stored = Chunks(bytes_, length)
        np.testing.assert_array_equal(vae.transform(stored), expected)
        assert stored.n_reads.max() == 1


def test_chunks_of_an_array_do_not_matter_within_a_block(bytes_):
    fitted = ConvVAE(**TINY).fit(bytes_)
    for length in (1, 7, 70):
        assert_same_fit(ConvVAE(**TINY).fit(Chunks(bytes_, length)), fitted)


@pytest.mark.usefixtures("small_parts")
def test_large_chunks_are_shuffled_with_others(monkeypatch):
    """Sorted images come from several chunks in each block."""
    seen = []
    train_steps = Trainer.train_steps

    def noted(self, images, *args, **kwargs):
        seen.append(images[:, 0, 0, 0].copy())
        return train_steps(self, images, *args, **kwargs)

    monkeypatch.setattr(Trainer, "train_steps", noted)
    numbered = np.tile(np.arange(70, dtype=np.uint8)[:, None, None], (1, 8, 8))
    params = {**TINY, "epochs": 1, "batch_size": 4, "value_range": (0, 255)}
    ConvVAE(**params).fit(Chunks(numbered, 5))
    order = np.concatenate(seen)
    assert sorted(order) == list(range(70))
    first = order[:40] // 5
    assert len(set(first)) == 8
    assert len(set(first[:8])) > 3


def windows(array, path):
    """Overlapping windows of a memory map, whose base is no array."""
    lines = as_memory_map(array.reshape(-1, 8), path)
    return np.lib.stride_tricks.sliding_window_view(lines, 8, axis=0)[::8]


def strided(array, path):
    stored = as_memory_map(array, path)
    return np.lib.stride_tricks.as_strided(stored, stored.shape, stored.strides)


@pytest.mark.parametrize(
    "store",
    [
        windows,
        strided,
        lambda array, path: np.asarray(as_memory_map(array, path)),
        lambda array, path: as_memory_map(array, path).view(np.ndarray)[::-1][:, 1:],
        lambda array, path: np.broadcast_to(as_memory_map(array[:1], path), (9, 8, 8)),
    ],
)
def test_all_views_of_memory_maps_are_stored(bytes_, tmp_path, store):
    assert is_stored(store(bytes_, tmp_path))


def test_copies_of_memory_maps_are_in_memory(bytes_, tmp_path):
    stored = as_memory_map(bytes_, tmp_path)
    for copy in (np.array(stored), windows(bytes_, tmp_path).copy(), bytes_[::2]):
        assert not is_stored(copy)


@pytest.mark.parametrize(
    "error", [RuntimeError("lost"), OverflowError(), KeyError(1), OSError("disk")]
)
@pytest.mark.parametrize("n_reads", [0, 1, 2])
def test_errors_of_the_storage_stay_what_they_are(images, error, n_reads):
    class Failing(Slices):
        def __getitem__(self, key):
            if len(self.lengths) == n_reads:
                raise error
            return super().__getitem__(key)

    with pytest.raises(type(error)) as raised:
        ConvVAE(**TINY).fit(Failing(images))
    assert raised.value is error
    assert "while reading rows" in error.__notes__[0]


def test_partial_fit_and_validation_images_may_be_stored(bytes_, tmp_path):
    stored = as_memory_map(bytes_, tmp_path)
    assert_same_fit(
        ConvVAE(**TINY).partial_fit(bytes_).partial_fit(bytes_),
        ConvVAE(**TINY).partial_fit(stored).partial_fit(stored),
    )
    vae = ConvVAE(**TINY, early_stopping=True)
    assert_same_fit(
        ConvVAE(**TINY, early_stopping=True).fit(bytes_, X_val=bytes_[:9]),
        vae.fit(stored, X_val=stored[:9]),
    )


@pytest.mark.usefixtures("small_parts")
def test_training_reads_short_runs(bytes_):
    stored = Slices(bytes_)
    ConvVAE(**{**TINY, "epochs": 1, "batch_size": 8}).fit(stored)
    # A sample in 16 runs of 4 for the value range, another for their mean, once in
    # training, in runs of up to 4, and once for `latent_kl_`.
    *trained, encoded = stored.lengths
    assert max(trained) <= 4
    assert sum(trained) == 2 * 16 * 4 + 70
    assert encoded == 70


def test_noise_variances_of_pixels_are_measured_in_parts(bytes_, monkeypatch):
    """Of no more than 20 images, whose bits are those of images in memory."""
    monkeypatch.setattr("skvae.training.result._PART_PIXELS", 20 * N_PIXELS)
    stored = Slices(bytes_)
    params = {**TINY, "noise_type": "diag", "value_range": (0, 255)}
    vae = ConvVAE(**params).fit(stored)
    assert stored.lengths[-8:] == [20, 20, 20, 10] * 2
    assert_same_fit(vae, ConvVAE(**params).fit(bytes_))


def test_an_index_array_reads_its_rows_in_its_order(bytes_, monkeypatch):
    monkeypatch.setattr("skvae.data.storage._CHUNK_BYTES", 4 * N_PIXELS)
    stored = StoredImages(Slices(bytes_), lambda part: part[..., None], (8, 8, 1))
    rows = np.random.default_rng(0).permutation(70)[:40]
    np.testing.assert_array_equal(stored[rows][..., 0], bytes_[rows])
    np.testing.assert_array_equal(stored[5:17][..., 0], bytes_[5:17])
    selection = Selection(stored, rows)
    assert len(selection) == 40
    np.testing.assert_array_equal(selection[3:9][..., 0], bytes_[rows[3:9]])


# Writing.


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("store", STORAGES)
def test_results_are_written_to_what_is_given(bytes_, tmp_path, store, dtype):
    vae = ConvVAE(**TINY).fit(bytes_)
    features = vae.transform(bytes_)

    def blank(array, folder):
        folder.mkdir()
        out = store(np.zeros(array.shape, dtype), folder)
        if isinstance(out, np.memmap):  # one to read from
            shape = (len(array) + 5, *array.shape[1:])
            out = np.memmap(folder / "out", dtype, "w+", shape=shape)[2:-3]
        return out

    out = blank(features, tmp_path / "features")
    assert vae.transform(bytes_, out=out) is out
    np.testing.assert_array_equal(out[:], features)
    decoded = vae.inverse_transform(features)
    out = blank(decoded, tmp_path / "decoded")
    assert vae.inverse_transform(features, out=out) is out
    np.testing.assert_array_equal(out[:], decoded)


def test_many_batches_are_written_in_their_places(bytes_, monkeypatch):
    vae = ConvVAE(**TINY).fit(bytes_)
    features = vae.transform(bytes_)
    decoded = vae.inverse_transform(features)
    monkeypatch.setattr(FittedNetwork, "images_at_once", 9)
    out = np.zeros_like(features)
    np.testing.assert_array_equal(vae.transform(bytes_, out=out), features)
    out = np.zeros_like(decoded)
    vae.inverse_transform(features, out=out)
    np.testing.assert_array_equal(out, decoded)


class Out:
    """Takes a batch at a time, and counts those that wait."""

    def __init__(self, shape, n_computed, fails=False):
        self.shape, self.dtype = shape, np.dtype(np.float32)
        self.n_computed, self.fails = n_computed, fails
        self.n_stored, self.waiting = 0, []

    def __setitem__(self, key, value):
        if self.fails:
            msg = "no space left"
            raise OSError(msg)
        time.sleep(0.02)
        self.n_stored += 1
        self.waiting.append(self.n_computed() - self.n_stored)


@pytest.fixture
def n_computed(monkeypatch):
    """Function that counts the computed batches of 2 images."""
    check = FittedNetwork.check_finite
    computed = []

    def counting(self, output):
        computed.append(len(output))
        check(self, output)

    monkeypatch.setattr(FittedNetwork, "images_at_once", 2)
    monkeypatch.setattr(FittedNetwork, "check_finite", counting)
    return lambda: len(computed)


def test_results_do_not_pile_up_where_storing_is_slow(fitted, n_computed):
    out = Out((60, 8, 8), n_computed)
    fitted.inverse_transform(np.zeros((60, 2)), out=out)
    assert out.n_stored == n_computed() == 30
    assert max(out.waiting) <= 4


def test_where_storing_fails_computing_ends(fitted, n_computed):
    with pytest.raises(OSError, match="no space left"):
        fitted.inverse_transform(
            np.zeros((60, 2)), out=Out((60, 8, 8), n_computed, fails=True)
        )
    assert n_computed() <= 4


@pytest.mark.parametrize(
    ("out", "error", "match"),
    [
        (np.zeros((70, 3), np.float32), ValueError, r"\(70, 2\), got \(70, 3\)"),
        (np.zeros((70, 2), np.int64), TypeError, "float64, got dtype int64"),
        (np.zeros((70, 2), np.float16), TypeError, "float64, got dtype float16"),
        (pd.DataFrame(np.zeros((70, 2))), TypeError, "got dtype None"),
        ([[0.0, 0.0]] * 70, TypeError, "got dtype None"),
        (np.broadcast_to(np.float32(0), (70, 2)), ValueError, "out is read-only"),
    ],
)
def test_what_cannot_take_the_result_is_refused(bytes_, out, error, match):
    vae = ConvVAE(**TINY).set_params(latent_dim=2).fit(bytes_)
    with pytest.raises(error, match=match):
        vae.transform(bytes_, out=out)


def test_a_result_never_overwrites_what_it_is_computed_from(images):
    vae = ConvVAE(**{**TINY, "latent_dim": 64}).fit(images)
    X = images.astype(np.float32)
    for out in (X.reshape(-1, 64), X.reshape(-1, 64)[::-1]):
        with pytest.raises(ValueError, match="out shares memory"):
            vae.transform(X, out=out)
    both = np.zeros((len(X), 128), np.float32)
    both[:, :64] = X.reshape(-1, 64)
    z = vae.transform(both[:, :64], out=both[:, 64:])
    np.testing.assert_array_equal(z, vae.transform(X))
    with pytest.raises(ValueError, match="out shares memory"):
        vae.inverse_transform(z, out=z.reshape(X.shape))


# What cannot be read.


def refused(vae, X):
    """The error that fit raises, after which nothing has changed."""
    before = dict(vae.__dict__)
    with pytest.raises((ValueError, OSError)) as caught:
        vae.fit(X)
    assert vae.__dict__ == before
    return caught.value


@pytest.mark.usefixtures("small_parts")
def test_a_file_that_was_cut_off_is_an_error(bytes_, tmp_path):
    """Reading on would end the process."""
    vae = ConvVAE(**TINY).fit(bytes_)
    fitted = {path: weight.copy() for path, weight in vae.weights_.items()}
    stored = as_view_of_memory_map(bytes_, tmp_path)
    with (tmp_path / "images.raw").open("r+b") as file:
        file.truncate(8 + 40 * N_PIXELS)
    error = refused(vae, stored)
    assert "shorter than when it was opened" in str(error)
    assert "while reading rows" in error.__notes__[0]
    for view in (stored, np.asarray(stored)):
        with pytest.raises(OSError, match="shorter"):
            vae.transform(view)
    out = np.memmap(tmp_path / "out", np.float32, "w+", shape=(len(bytes_), 2))
    with (tmp_path / "out").open("r+b") as file:
        file.truncate(8)
    with pytest.raises(OSError, match="shorter"):
        vae.transform(bytes_, out=out)
    for path, weight in vae.weights_.items():
        np.testing.assert_array_equal(weight, fitted[path])


def test_a_memory_map_outlives_the_name_of_its_file(bytes_, tmp_path):
    vae = ConvVAE(**TINY).fit(bytes_)
    stored = as_memory_map(bytes_, tmp_path)
    (tmp_path / "short").write_bytes(b"")
    (tmp_path / "short").replace(tmp_path / "images.npy")
    np.testing.assert_array_equal(vae.transform(stored), vae.transform(bytes_))
    (tmp_path / "images.npy").unlink()
    np.testing.assert_array_equal(vae.transform(stored), vae.transform(bytes_))


class Faulty(Slices):
    """Array with a fault in rows 20 and later."""

    def __init__(self, array, fault):
        super().__init__(array)
        self.fault = fault

    def __getitem__(self, key):
        part = super().__getitem__(key)
        return self.fault(part) if key.start >= 20 else part


def unreadable(_part):
    msg = "the disk is gone"
    raise OSError(msg)


def with_nan(part):
    part = part.copy()
    part[-1] = np.nan
    return part


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (unreadable, "the disk is gone"),
        (with_nan, "NaN"),
        (lambda part: part[:-1], "has changed"),
        (lambda part: part.astype(np.float32), "has changed"),
        (lambda part: part[:, 1:], "shape"),
    ],
    ids=["unreadable", "nan", "shrunk", "other dtype", "other shape"],
)
def test_rows_that_cannot_be_read_are_named(images, fault, message):
    vae = ConvVAE(**{**TINY, "value_range": (0, 1)})
    X = images.astype(np.float64)
    error = refused(vae, Faulty(X, fault))
    assert message in str(error)
    (note,) = error.__notes__
    start, end = (int(word) for word in note.split() if word.isdecimal())
    assert 20 <= start <= end < 70
    assert_same_fit(vae.fit(X), ConvVAE(**vae.get_params()).fit(X))


@pytest.mark.parametrize(
    ("shape", "dtype", "match"),
    [
        ((0, 8, 8), "f8", "0 sample"),
        ((5, 0), "f8", "0 feature"),
        ((5, 0, 8), "u1", "0 feature"),
        ((5, 8, 8), "c8", "numeric"),
        ((5, 8, 8, 1, 1), "f8", "5D"),
    ],
)
def test_what_storage_says_of_itself_is_checked(shape, dtype, match):
    refused_error = refused(ConvVAE(**TINY), Slices(np.zeros(shape, dtype)))
    assert match in str(refused_error)


class Lazy:
    """Slices that read nothing until rows are picked from them, as memory maps do."""

    def __init__(self, array, first=0, read=None):
        self.shape, self.dtype = array.shape, array.dtype
        self.array, self.first = array, first
        self.read = [] if read is None else read

    def __len__(self):
        return len(self.array)

    def __getitem__(self, key):
        if isinstance(key, slice):
            return Lazy(self.array[key], self.first + key.start, self.read)
        self.read.extend(self.first + key)
        return self.array[key]


def test_no_rows_are_no_images(bytes_):
    stored = StoredImages(bytes_, lambda rows: rows[..., None], (8, 8, 1))
    assert stored[np.array([], int)].shape == (0, 8, 8, 1)


def test_of_a_memory_map_only_the_rows_that_are_wanted_are_touched(bytes_):
    lazy = Lazy(bytes_[..., None])
    stored = StoredImages(lazy, lambda rows: rows, (8, 8, 1))
    rows = np.array([60, 3, 5, 41])
    np.testing.assert_array_equal(stored[rows], bytes_[rows][..., None])
    assert sorted(lazy.read) == sorted(rows)


def test_selected_rows_are_an_out_of_core_array(images):
    rows = np.array([0, 3, 4, 5, 60])
    selected = StoredRows(Slices(images), rows)
    assert is_stored(selected)
    assert selected.shape == (5, 8, 8)
    assert selected.dtype == images.dtype
    np.testing.assert_array_equal(selected[1:4], images[rows[1:4]])
    assert not hasattr(selected, "chunks")


def test_errors_in_selected_rows_name_the_rows_of_x(images):
    broken = images.copy()
    broken[60] = np.nan
    selected = StoredRows(Slices(broken), np.array([0, 3, 5, 60, 62]))
    vae = ConvVAE(**TINY).fit(images)
    with pytest.raises(ValueError, match="NaN") as raised:
        vae.transform(selected)
    assert "while reading rows 0 to 62 of X" in raised.value.__notes__


def test_selected_rows_of_large_chunks_are_read_chunk_by_chunk():
    """In any order of the runs that its reader chooses."""

    class Chunked(Slices):
        chunks = (8192, 1024)  # 8 MB each

    stored = Chunked(np.broadcast_to(np.uint8(0), (8 * 8192, 1024)))
    rng = np.random.default_rng(0)
    rows = np.flatnonzero(rng.random(8 * 8192) < 0.8)
    selected = StoredRows(stored, rows)
    reader = StoredImages(selected, lambda part: part, (1024,))
    for start in rng.permutation(reader.starts):
        reader[start : start + 1]
    assert stored.lengths == [8192] * 8
