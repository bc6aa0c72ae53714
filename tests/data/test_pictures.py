"""Reader for folders of PNG and JPEG files."""

import io
import itertools

import numpy as np
import pytest
from pictures import write_pictures
from PIL import Image

from skvae.data.pictures import read_pictures


def test_pictures_are_resized_and_sorted_by_path(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    images, unreadable = read_pictures(tmp_path, (10, 13), is_grey=False)
    assert images.shape == (20, 10, 13, 3)
    assert images.dtype == np.uint8
    assert not unreadable
    # Lossless files of the requested size.
    names = ["00.png", "06.png", "12.png", "18.png"]
    for i, name in zip((0, 3, 6, 9), names, strict=True):
        expected = np.asarray(Image.open(tmp_path / name))
        np.testing.assert_array_equal(images[i], expected)
    # A grey picture has three equal channels.
    np.testing.assert_array_equal(images[1], images[1][..., :1].repeat(3, axis=-1))


def test_grey_is_the_luma_of_colours(tmp_path):
    colours = np.array([[[200, 0, 0], [0, 200, 0], [0, 0, 200], [9, 9, 9]]], np.uint8)
    Image.fromarray(colours).save(tmp_path / "colours.png")
    (image,), _ = read_pictures(tmp_path, (1, 4), is_grey=True)
    # ITU-R 601-2.
    luma = colours @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(image, luma[..., np.newaxis], atol=0.5)


def test_resized_constant_picture_is_constant(tmp_path):
    Image.new("RGB", (50, 3), (10, 20, 30)).save(tmp_path / "wide.png")
    images, _ = read_pictures(tmp_path, (7, 5), is_grey=False)
    assert images.shape == (1, 7, 5, 3)
    assert (images == [10, 20, 30]).all()


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    (image,), _ = read_pictures(tmp_path, (3, 2), is_grey=True)
    np.testing.assert_array_equal(image[..., 0], np.rot90(pixels, -1))


def test_transparent_pixels_are_white(tmp_path):
    pixels = np.full((1, 3, 4), 100, np.uint8)
    pixels[0, :, 3] = 0, 255, 51  # a fifth
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    (image,), _ = read_pictures(tmp_path, (1, 3), is_grey=False)
    assert image[0, :, 0].tolist() == [255, 100, 224]


def test_16_bits_are_converted_to_8(tmp_path):
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    (image,), _ = read_pictures(tmp_path, (1, 4), is_grey=True)
    assert image[..., 0].tolist() == [[0, 0, 1, 255]]


def test_unreadable_files_are_skipped_and_returned(tmp_path):
    write_pictures(tmp_path, 3)
    whole = (tmp_path / "00.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpeg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    images, unreadable = read_pictures(tmp_path, (4, 4), is_grey=True)
    assert len(images) == 3
    assert [path.name for path in unreadable] == ["cut.png", "empty.jpeg", "text.jpg"]
    assert all(unreadable.values())


# Pillow warns about them.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_broken_exif_data(tmp_path):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.5
    Image.new("L", (4, 4)).save(buffer, "JPEG", exif=exif)
    whole = buffer.getvalue()
    exif_bytes = range(whole.index(b"Exif") + 6, whole.index(b"\xff\xdb"))
    for position, value in itertools.product(exif_bytes, (1, 2, 5, 11)):
        damaged = bytearray(whole)
        damaged[position] = value
        (tmp_path / f"{position}-{value}.jpg").write_bytes(damaged)
    images, unreadable = read_pictures(tmp_path, (4, 4), is_grey=True)
    assert len(images) + len(unreadable) == 4 * len(exif_bytes)
    assert unreadable
    assert len(images) > 3 * len(exif_bytes)


def test_folder_without_pictures_raises(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match="no readable PNG or JPEG file, out of 0"):
        read_pictures(tmp_path, (4, 4), is_grey=True)
