"""Images are read completely and unchanged, or refused by name."""

import cv2
import numpy as np
import pytest
import tifffile

from cellular.base.errors import InputError
from cellular.imaging.images import read_image, read_labels, write_labels

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
    [(COLOUR, "one channel"), (np.zeros((4, 4), np.float32), "whole numbers")],
    ids=["colour", "fractions"],
)
def test_images_that_are_no_label_maps_are_refused(tmp_path, labels, message):
    with pytest.raises(InputError, match=message):
        read_labels(save(tmp_path / "x.tif", labels))


def test_negative_labels_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds -1"):
        read_labels(save(tmp_path / "x.tif", np.array([[-1, 0]], np.int16)))
