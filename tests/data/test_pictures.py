"""Reader for folders of pictures."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from pictures import write_pictures
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from skvae.data.pictures import read_pictures


def test_pictures_are_resized_and_sorted_by_path(tmp_path):
    write_pictures(tmp_path)
    images, left_out = read_pictures(tmp_path, (10, 13), is_grey=False)
    assert images.shape == (20, 10, 13, 3)
    assert images.dtype == np.uint8
    assert not left_out
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


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_grey_pictures_of_16_bits_keep_their_values(tmp_path, suffix):
    values = np.array([[0, 255, 256, 4095, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    (image,), _ = read_pictures(tmp_path, (1, 5), is_grey=True)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image[..., 0], values)
    (image,), _ = read_pictures(tmp_path, (1, 5), is_grey=False)
    np.testing.assert_array_equal(image, np.stack([values] * 3, axis=-1))


def test_8_bits_beside_16_are_scaled(tmp_path):
    Image.fromarray(np.array([[0, 100]], np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.array([[7, 65535]], np.uint16)).save(tmp_path / "b.png")
    Image.fromarray(np.array([[1, 255]], np.uint8)).save(tmp_path / "c.png")
    images, _ = read_pictures(tmp_path, (1, 2), is_grey=True)
    assert images[..., 0].tolist() == [[[0, 25700]], [[7, 65535]], [[257, 65535]]]


def test_pictures_of_16_bits_are_resized_smoothly(tmp_path):
    values = np.linspace(0, 4095, 64).astype(np.uint16)
    Image.fromarray(np.tile(values, (64, 1))).save(tmp_path / "ramp.png")
    (image,), _ = read_pictures(tmp_path, (8, 8), is_grey=True)
    expected = values.reshape(8, 8).mean(axis=1)
    np.testing.assert_allclose(image[:, 1:-1, 0], np.tile(expected[1:-1], (8, 1)), 0.02)


def test_16_bits_of_colours_are_reduced_with_a_warning(tmp_path):
    # Pillow cannot write such files: two pixels of 3 x 16 bits, after a filter byte.
    row = b"\x00" + struct.pack(">6H", 0, 256, 65535, 4096, 8, 1000)
    header = struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body))
        + name
        + body
        + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.warns(UserWarning, match="1 pictures have colours of 16 bits"):
        (image,), _ = read_pictures(tmp_path, (1, 2), is_grey=False)
    assert image.tolist() == [[[0, 1, 255], [16, 0, 3]]]


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "ppm", "tiff", "webp"])
def test_formats_of_pillow_are_read(tmp_path, suffix):
    Image.new("RGB", (9, 9), (200, 100, 50)).save(tmp_path / f"a.{suffix}")
    for folder in (tmp_path, str(tmp_path)):
        images, left_out = read_pictures(folder, (3, 3), is_grey=False)
        np.testing.assert_allclose(images[0, 1, 1], (200, 100, 50), atol=3)
        assert not left_out


def test_animated_pictures_give_their_first_frame(tmp_path):
    first, *others = (Image.new("L", (4, 4), grey) for grey in (10, 200, 90))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=others)
    images, _ = read_pictures(tmp_path, (4, 4), is_grey=True)
    assert (images == 10).all()
    assert len(images) == 1


@pytest.mark.parametrize("mode", ["1", "CMYK", "LA", "P", "PA"])
def test_all_modes_look_as_in_a_viewer(tmp_path, mode):
    Image.new("RGB", (2, 2), "white").convert(mode).save(tmp_path / "a.tiff")
    images, left_out = read_pictures(tmp_path, (2, 2), is_grey=False)
    assert not left_out
    assert (images >= 254).all()


def test_a_transparent_colour_of_a_palette_is_white(tmp_path):
    picture = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    picture.putpalette([9, 9, 9, 50, 60, 70])
    picture.save(tmp_path / "clear.png", transparency=0)
    (image,), _ = read_pictures(tmp_path, (1, 2), is_grey=False)
    assert image.tolist() == [[[255, 255, 255], [50, 60, 70]]]


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0.5, 1.0]], np.float32),
        np.array([[0, 2**20]], np.int32),
        np.array([[-1, 5]], np.int32),
    ],
)
def test_values_beyond_16_bits_are_left_out_and_named(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "a.tiff")
    Image.new("L", (2, 2)).save(tmp_path / "b.png")
    images, left_out = read_pictures(tmp_path, (2, 2), is_grey=True)
    assert len(images) == 1
    assert f"dtype {values.dtype}" in left_out[tmp_path / "a.tiff"]


def test_other_files_are_named_and_hidden_ones_ignored(tmp_path):
    write_pictures(tmp_path, 1)
    (tmp_path / "labels.csv").write_text("no picture")
    (tmp_path / ".DS_Store").write_text("no picture")
    (tmp_path / ".cache").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / ".cache" / "a.png")
    images, left_out = read_pictures(tmp_path, (4, 4), is_grey=True)
    assert len(images) == 1
    assert left_out == {tmp_path / "labels.csv": "not a picture that Pillow reads"}


def test_a_folder_that_is_none_is_named(tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere is not a folder"):
        read_pictures(tmp_path / "nowhere", (4, 4), is_grey=True)


def test_left_out_files_are_skipped_and_returned(tmp_path):
    write_pictures(tmp_path, 3)
    whole = (tmp_path / "00.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpeg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    images, left_out = read_pictures(tmp_path, (4, 4), is_grey=True)
    assert len(images) == 3
    assert [path.name for path in left_out] == ["cut.png", "empty.jpeg", "text.jpg"]
    assert all(left_out.values())


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
    images, left_out = read_pictures(tmp_path, (4, 4), is_grey=True)
    assert len(images) + len(left_out) == 4 * len(exif_bytes)
    assert left_out
    assert len(images) > 3 * len(exif_bytes)


def test_folder_without_pictures_raises(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(ValueError, match=r"no picture.* out of 1 files.*not a pic"):
        read_pictures(tmp_path, (4, 4), is_grey=True)


def test_a_folder_whose_pictures_cannot_be_used_says_why(tmp_path):
    Image.fromarray(np.array([[0.5, 1.0]], np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="Reason: values of dtype float32"):
        read_pictures(tmp_path, (4, 4), is_grey=True)


@pytest.mark.parametrize("error", [RuntimeError, NotImplementedError])
def test_any_error_of_a_decoder_leaves_its_file_out(tmp_path, monkeypatch, error):
    """As of AVIF and DDS."""
    write_pictures(tmp_path, 2)
    load = PngImageFile.load

    def broken(picture):
        if picture.filename.endswith("00.png"):
            raise error("broken")
        return load(picture)

    monkeypatch.setattr(PngImageFile, "load", broken)
    images, left_out = read_pictures(tmp_path, (4, 4), is_grey=True)
    assert len(images) == 1
    assert left_out == {tmp_path / "00.png": "broken"}


def test_colours_of_5_bits_do_not_warn_of_16(tmp_path):
    """A BMP of 16 bits a pixel."""
    header = struct.pack("<2sIHHI", b"BM", 70, 0, 0, 66)
    info = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    pixels = struct.pack("<HH", 0xF800, 0x001F)
    (tmp_path / "a.bmp").write_bytes(header + info + masks + pixels)
    images, left_out = read_pictures(tmp_path, (1, 2), is_grey=False)
    assert left_out == {}
    np.testing.assert_array_equal(images[0, 0], [[255, 0, 0], [0, 0, 255]])
