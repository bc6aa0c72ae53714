"""The order of an epoch's images."""

import threading

import numpy as np
import pytest

from skvae.data.shuffling import shuffled_blocks
from skvae.data.storage import ReadingStopped, StoredImages

RUN, BLOCK = 4, 32


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr("skvae.data.storage._CHUNK_BYTES", RUN)
    monkeypatch.setattr("skvae.data.shuffling._BLOCK_BYTES", BLOCK)


def all_rows(rows):
    return rows


def shuffled(images, rows, batch_size, rng, choose):
    return shuffled_blocks(
        images, rows, batch_size, rng, choose=choose, is_wanted=lambda: True
    )


def blocks_of(n_images, rows=None, batch_size=8, seed=0, choose=all_rows):
    """Numbers of the images in each block."""
    images = np.arange(n_images, dtype=np.uint8).reshape(-1, 1, 1, 1)
    rows = np.arange(n_images) if rows is None else rows
    rng = np.random.default_rng(seed)
    blocks = list(shuffled(images, rows, batch_size, rng, choose))
    return [block.ravel() for _, block in blocks]


@pytest.mark.parametrize(
    ("n_images", "batch_size", "lengths"),
    [
        (1, 8, [1]),
        (32, 8, [32]),
        (100, 8, [32, 32, 32, 4]),
        (100, 7, [28, 28, 28, 16]),
        (100, 40, [40, 40, 20]),
    ],
)
def test_each_row_comes_once_and_only_the_last_batch_is_short(
    n_images, batch_size, lengths
):
    blocks = blocks_of(n_images, batch_size=batch_size)
    assert [len(block) for block in blocks] == lengths
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(n_images))


def test_some_rows_may_be_left_out():
    rows = np.flatnonzero(np.random.default_rng(0).random(200) < 0.5)
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks_of(200, rows))), rows)


def test_the_order_depends_on_the_generator_alone():
    one, same, other = blocks_of(100), blocks_of(100), blocks_of(100, seed=1)
    np.testing.assert_array_equal(np.concatenate(one), np.concatenate(same))
    assert (np.concatenate(one) != np.concatenate(other)).mean() > 0.9


def test_a_block_comes_from_runs_all_over_the_data():
    means = [
        np.mean(block) for seed in range(50) for block in blocks_of(256, seed=seed)
    ]
    # 8 runs with means that are uniform on 0 to 255, drawn without replacement.
    expected = 255 / np.sqrt(12 * 8) * np.sqrt(56 / 63)
    assert np.std(means) == pytest.approx(expected, rel=0.15)


def test_within_a_block_any_row_may_follow_any_other():
    """Full shuffles: neighbours in a batch are no nearer than rows of the block are."""
    distances = [
        np.abs(np.diff(block.astype(int))).mean()
        / np.abs(block[:, None] - block * 1.0).mean()
        for seed in range(50)
        for block in blocks_of(256, seed=seed)
    ]
    assert np.mean(distances) == pytest.approx(32 / 31, rel=0.02)


def test_an_error_in_reading_ahead_reaches_the_caller():
    class Images:
        shape, dtype = (100, 1, 1, 1), np.dtype(np.uint8)

        def __getitem__(self, rows):
            if 50 in rows:
                msg = "no"
                raise OSError(msg)
            return rows.astype(np.uint8)

    rng = np.random.default_rng(0)
    with pytest.raises(OSError, match="no"):
        list(shuffled(Images(), np.arange(100), 8, rng, all_rows))


def test_chosen_rows_alone_are_read():
    read = []

    class Images:
        shape, dtype = (100, 1, 1, 1), np.dtype(np.uint8)

        def __getitem__(self, rows):
            read.extend(rows)
            return rows.astype(np.uint8).reshape(-1, 1, 1, 1)

    def every_other(rows):
        return rows[::2]

    rng = np.random.default_rng(0)
    blocks = list(shuffled(Images(), np.arange(100), 8, rng, every_other))
    assert [n for n, _ in blocks] == [32, 32, 32, 4]
    expected = [block[::2] for block in blocks_of(100)]
    np.testing.assert_array_equal(read, np.concatenate(expected))
    np.testing.assert_array_equal(
        np.concatenate([images.ravel() for _, images in blocks]), read
    )


def test_reading_ends_when_images_are_not_wanted_any_more(monkeypatch):
    """After the chunk that is being read."""
    monkeypatch.setattr("skvae.data.shuffling._BLOCK_BYTES", 64 * 40)
    read = []

    class Stored:
        shape, dtype = (400, 8, 8), np.dtype(np.uint8)

        def __getitem__(self, rows):
            read.append(rows)
            return np.ones((rows.stop - rows.start, 8, 8), np.uint8)

    stored = StoredImages(Stored(), lambda rows: rows[..., None], (8, 8, 1))
    blocks = shuffled_blocks(
        stored,
        range(400),
        16,
        np.random.default_rng(0),
        choose=lambda rows: rows,
        is_wanted=lambda: len(read) < 3,
    )
    with pytest.raises(ReadingStopped):
        next(blocks)
    assert len(read) == 3


def test_a_closed_generator_reads_no_further():
    read, is_reading_ahead = [], threading.Event()

    class Images:
        shape, dtype = (100, 1, 1, 1), np.dtype(np.uint8)

        def __len__(self):
            return 100

        def __getitem__(self, key):
            read.append(len(key))
            if len(read) == 2:
                is_reading_ahead.set()
            return np.zeros((len(key), 1, 1, 1), np.uint8)

    rng = np.random.default_rng(0)
    blocks = shuffled(Images(), np.arange(100), 8, rng, lambda rows: rows)
    next(blocks)
    assert is_reading_ahead.wait(10)
    blocks.close()
    assert len(read) == 2
