"""Images are read completely and unchanged, or refused by name."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile

from cellular.base.errors import InputError
from cellular.imaging.fields import read_field
from cellular.imaging.images import others, read_image, read_labels, write_labels

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 255, (40, 50), np.uint8)
COLOUR = RNG.integers(0, 255, (40, 50, 3), np.uint8)
DEEP = RNG.integers(0, 65_535, (40, 50), np.uint16)


def save(path, image, **options):
    if path.suffix == ".tif":
        tifffile.imwrite(path, image, **options)
    else:
        cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return path


@pytest.mark.parametrize("image", [GREY, COLOUR, DEEP], ids=["grey", "colour", "16 bit"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_pixels_come_back_as_they_were(tmp_path, image, suffix):
    back = read_image(save(tmp_path / f"x{suffix}", image))
    assert back.dtype == image.dtype
    assert np.array_equal(back, image)


@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_compressed_tiffs_are_read(tmp_path, compression):
    assert np.array_equal(read_image(save(tmp_path / "x.tif", DEEP, compression=compression)), DEEP)


def test_channel_first_tiffs_are_transposed(tmp_path):
    planes = np.moveaxis(COLOUR, -1, 0)
    path = save(tmp_path / "x.tif", planes, photometric="minisblack")
    assert np.array_equal(read_image(path), COLOUR)


PLANES = np.moveaxis(COLOUR, -1, 0)
STORED = {
    "planar": (PLANES, {"photometric": "rgb", "planarconfig": "separate"}),
    "tiled": (COLOUR, {"tile": (16, 16)}),
    "big-endian": (DEEP, {"byteorder": ">"}),
    "BigTIFF": (DEEP, {"bigtiff": True}),
    "half floats": (GREY.astype(np.float16), {}),
    "negative": (GREY.astype(np.int16) - 100, {}),
    "bool": (GREY > 100, {}),
    "channels of ImageJ": (PLANES, {"imagej": True, "metadata": {"axes": "CYX"}}),
    "channels of OME": (PLANES, {"ome": True, "metadata": {"axes": "CYX"}}),
    "two planes of unknown axis": (PLANES[:2], {"metadata": None}),
    "one plane": (PLANES[:1], {"photometric": "minisblack"}),
    "opaque": (np.dstack([COLOUR, np.full_like(GREY, 255)]), {}),
}


@pytest.mark.parametrize("kind", STORED)
def test_tiffs_of_every_kind_are_read(tmp_path, kind):
    image, options = STORED[kind]
    back = read_field(save(tmp_path / "x.tif", image, **options))
    if image.ndim == 3:
        image = image if image.shape[2] == 4 else np.moveaxis(image, np.argmin(image.shape), -1)
        image = image[..., :3].squeeze()
    assert np.array_equal(back, image)


@pytest.mark.parametrize("kind", ["imagej", "ome", "shaped"])
@pytest.mark.parametrize(("axes", "what"), [("ZYX", "planes in depth"), ("TYX", "time points")])
def test_a_stack_is_not_read_as_colours(tmp_path, kind, axes, what):
    path = save(
        *(tmp_path / "x.tif", PLANES),
        photometric="minisblack",
        metadata={"axes": axes},
        **{kind: True},
    )
    with pytest.raises(
        InputError, match=rf"x\.tif: a stack of 3 {what} \(axis {axes[0]}\), expected"
    ):
        read_image(path)


REFUSED = {
    "transparent": (np.dstack([COLOUR, GREY]), {}, "four channels"),
    "CMYK": (np.dstack([COLOUR, GREY]), {"photometric": "separated"}, "four channels"),
    "palette": (
        *(GREY, {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
        "colours by numbers of a colour table",
    ),
    "NaN": (np.array([[np.nan, 1], [np.nan, np.inf]]), {}, "3 of 4 values are NaN, infinite"),
    "infinite": (np.array([[-np.inf, 1]], np.float16), {}, "1 of 2 values are NaN, infinite"),
    "huge": (np.array([[1e300, 1]]), {}, "1 of 2 values are NaN, infinite or above 1e\\+30"),
    "complex": (np.array([[1j, 1]]), {}, "complex numbers, expected real"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_images_whose_numbers_are_no_intensities_are_refused(tmp_path, kind):
    image, options, message = REFUSED[kind]
    with pytest.raises(InputError, match=rf"x\.tif: {message}"):
        read_field(save(tmp_path / "x.tif", image, **options))


@pytest.mark.filterwarnings("ignore:.*zero-size")
def test_an_image_without_pixels_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"x\.tif: .*its pixels end after the file"):
        read_image(save(tmp_path / "x.tif", np.zeros((0, 5), np.uint8)))


@pytest.mark.parametrize("compression", ["jpeg", "zlib", None])
@pytest.mark.parametrize("missing", [1, 100])
def test_a_tiff_that_lacks_the_end_of_its_last_strip_is_refused(tmp_path, compression, missing):
    image = np.tile(COLOUR, (4, 4, 1))
    path = save(tmp_path / "x.tif", image, compression=compression, rowsperstrip=32)
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(InputError, match=r"x\.tif.*cut short"):
        read_image(path)


def test_a_tiff_without_tags_is_refused(tmp_path):
    path = save(tmp_path / "x.tif", COLOUR, metadata=None)
    content = bytearray(path.read_bytes())
    content[8] = 0  # the number of tags
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.tif: no readable TIFF.*axes"):
        read_image(path)


def test_a_png_with_more_pixels_than_opencv_reads_is_refused(tmp_path):
    content = bytearray(save(tmp_path / "x.png", GREY).read_bytes())
    content[16:24] = struct.pack(">II", 40_000, 40_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.png: OpenCV cannot read it; it reads at most"):
        read_image(tmp_path / "x.png")


def test_files_of_the_system_are_not_named(tmp_path):
    for name in (".DS_Store", "._x.png", "Thumbs.db", "desktop.ini", ".x.png", "x.bmp", "x"):
        (tmp_path / name).touch()
    (tmp_path / "link.png").symlink_to("nowhere")
    found = others(tmp_path, lambda path: path.name == "x.bmp")
    assert [path.name for path in found] == [".x.png", "link.png", "x"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_file_that_is_cut_short_is_refused_by_name(tmp_path, suffix, share):
    path = save(tmp_path / f"x{suffix}", COLOUR)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=rf"x\{suffix}.*cut short"):
        read_image(path)


def test_text_with_the_suffix_of_an_image_is_refused(tmp_path):
    (tmp_path / "x.png").write_text("<html>not here</html>")
    with pytest.raises(InputError, match="no readable image"):
        read_image(tmp_path / "x.png")


def test_a_stack_is_refused(tmp_path):
    path = save(tmp_path / "x.tif", np.zeros((9, 40, 50), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match=r"shape \(9, 40, 50\), expected one plane"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_label_maps_keep_16_bits_and_give_the_same_bytes_again(tmp_path, suffix):
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_labels(first, DEEP)
    write_labels(second, DEEP)
    assert np.array_equal(read_labels(first), DEEP)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("labels", "message"),
    [(COLOUR, "one channel"), (np.zeros((4, 4), np.float32), "whole numbers; save it with")],
    ids=["colour", "fractions"],
)
def test_images_that_are_no_label_maps_are_refused(tmp_path, labels, message):
    with pytest.raises(InputError, match=message):
        read_labels(save(tmp_path / "x.tif", labels))


def test_label_maps_with_a_colour_table_are_read(tmp_path):
    table = np.random.default_rng(0).integers(0, 65_535, (3, 256), np.uint16)
    path = save(tmp_path / "x.tif", GREY, photometric="palette", colormap=table)
    assert np.array_equal(read_labels(path), GREY)


def test_negative_labels_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds -1"):
        read_labels(save(tmp_path / "x.tif", np.array([[-1, 0]], np.int16)))
