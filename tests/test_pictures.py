"""Folders of pictures."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from skvae.data.pictures import read_pictures


def write_pictures(folder, n_images=20):
    """PNG and JPEG files of several sizes and kinds, in one folder and one below it."""
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(n_images):
        shape = [(10, 13, 3), (30, 8, 3), (9, 9)][i % 3]
        image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        image.save(folder / ("more" * (i % 2)) / f"{i:02}.{['png', 'JPG'][i % 2]}")


def test_pictures_come_in_the_order_of_their_paths_and_in_one_size(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    images, unreadable = read_pictures(tmp_path, (10, 13), is_grey=False)
    assert images.shape == (20, 10, 13, 3)
    assert images.dtype == np.uint8
    assert not unreadable
    # Of that very size and in a lossless format.
    names = ["00.png", "06.png", "12.png", "18.png"]
    for i, name in zip((0, 3, 6, 9), names, strict=True):
        expected = np.asarray(Image.open(tmp_path / name))
        np.testing.assert_array_equal(images[i], expected)
    # Grey ones have three equal channels.
    np.testing.assert_array_equal(images[1], images[1][..., :1].repeat(3, axis=-1))


def test_grey_is_the_luma_of_the_colours(tmp_path):
    colours = np.array([[[200, 0, 0], [0, 200, 0], [0, 0, 200], [9, 9, 9]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    (image,), _ = read_pictures(tmp_path, (1, 4), is_grey=True)
    # ITU-R 601-2.
    luma = colours @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(image, luma[..., np.newaxis], atol=0.5)


def test_constant_pictures_stay_constant_when_they_are_resized(tmp_path):
    Image.new("RGB", (50, 3), (10, 20, 30)).save(tmp_path / "wide.png")
    images, _ = read_pictures(tmp_path, (7, 5), is_grey=False)
    assert images.shape == (1, 7, 5, 3)
    assert (images == [10, 20, 30]).all()


def test_pictures_are_turned_as_the_camera_was(tmp_path):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    (image,), _ = read_pictures(tmp_path, (3, 2), is_grey=True)
    np.testing.assert_array_equal(image[..., 0], np.rot90(pixels, -1))


def test_what_is_transparent_is_white(tmp_path):
    pixels = np.full((1, 3, 4), 100, np.uint8)
    pixels[0, :, 3] = 0, 255, 51  # a fifth
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    (image,), _ = read_pictures(tmp_path, (1, 3), is_grey=False)
    assert image[0, :, 0].tolist() == [255, 100, 224]


def test_sixteen_bits_become_eight(tmp_path):
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    (image,), _ = read_pictures(tmp_path, (1, 4), is_grey=True)
    assert image[..., 0].tolist() == [[0, 0, 1, 255]]


def test_what_cannot_be_read_is_named_and_left_out(tmp_path):
    write_pictures(tmp_path, 3)
    whole = (tmp_path / "00.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpeg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    images, unreadable = read_pictures(tmp_path, (4, 4), is_grey=True)
    assert len(images) == 3
    assert [path.name for path in unreadable] == ["cut.png", "empty.jpeg", "text.jpg"]
    assert all(unreadable.values())


# Pillow tells of them, too.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_what_a_camera_notes_may_be_broken(tmp_path):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.5
    Image.new("L", (4, 4)).save(buffer, "JPEG", exif=exif)
    whole = buffer.getvalue()
    notes = range(whole.index(b"Exif") + 6, whole.index(b"\xff\xdb"))
    for place, value in itertools.product(notes, (1, 2, 5, 11)):
        damaged = bytearray(whole)
        damaged[place] = value
        (tmp_path / f"{place}-{value}.jpg").write_bytes(damaged)
    images, unreadable = read_pictures(tmp_path, (4, 4), is_grey=True)
    assert len(images) + len(unreadable) == 4 * len(notes)
    assert unreadable
    assert len(images) > 3 * len(notes)


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match="no PNG or JPEG file that can be read, of 0"):
        read_pictures(tmp_path, (4, 4), is_grey=True)
