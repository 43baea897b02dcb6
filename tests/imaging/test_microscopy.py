"""Images of every format come with their channels and pixel size, or are refused by name."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
from helpers.annotations import ROOT
from hypothesis import given
from hypothesis import strategies as st

from cellular.base.errors import InputError
from cellular.imaging.images import read_image
from cellular.imaging.microscopy import check_letters, read

RNG = np.random.default_rng(0)
PLANES = RNG.integers(0, 65_535, (7, 40, 50), np.uint16)
LAST = np.moveaxis(PLANES, 0, -1)  # (40, 50, 7)
COLOUR = RNG.integers(0, 255, (40, 50, 3), np.uint8)
GREY = {"photometric": "minisblack"}
NAMES = ["DAPI", "GFP", "a b", "Cy5", "405", "mCherry", "TL"]
OME = {
    "axes": "CYX",
    "PhysicalSizeX": 173.3,
    "PhysicalSizeXUnit": "nm",
    "PhysicalSizeY": 0.1733,
    "PhysicalSizeYUnit": "µm",
    "Channel": {"Name": NAMES},
}


def save(path, image, **options):
    tifffile.imwrite(path, image, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("colour", [False, True])
def test_images_without_words_have_the_pixels_of_read_image(tmp_path, suffix, colour):
    path = tmp_path / f"x{suffix}"
    cv2.imwrite(str(path), COLOUR if colour else COLOUR[..., 0])
    image = read(path)
    assert np.array_equal(image.pixels, read_image(path))
    assert (image.channels, image.pixel_size) == ((), None)


def test_ome_tiff_tells_its_channels_and_pixel_size(tmp_path):
    image = read(save(tmp_path / "x.ome.tif", PLANES, metadata=OME, **GREY))
    assert np.array_equal(image.pixels, LAST)
    assert image.channels == tuple(NAMES)
    assert image.pixel_size == pytest.approx(0.1733, rel=1e-12)


@pytest.mark.parametrize("unit", ["um", "micron", r"\u00B5m"])
def test_imagej_tells_its_channels_and_pixel_size(tmp_path, unit):
    words = {"axes": "CYX", "unit": unit, "Labels": NAMES}
    path = save(tmp_path / "x.tif", PLANES, imagej=True, metadata=words, resolution=(5, 5))
    image = read(path)
    assert np.array_equal(image.pixels, LAST)
    assert image.channels == tuple(NAMES)
    assert image.pixel_size == 0.2


@pytest.mark.parametrize(
    ("y", "x", "size"),
    [(0.2, 0.2, 0.2), (0.2, 0.201, 0.2005), (0.2, 0.203, None), (0, 0, None), (0.2, -0.2, None)],
)
def test_a_pixel_that_is_no_square_has_no_size(tmp_path, y, x, size):
    words = {"axes": "YX", "PhysicalSizeX": x, "PhysicalSizeY": y}
    image = read(save(tmp_path / "x.ome.tif", PLANES[0], metadata=words, **GREY))
    assert image.pixel_size == (size and pytest.approx(size))


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "inch", None])
def test_a_resolution_for_the_printer_is_no_pixel_size(tmp_path, unit):
    if unit is None or unit == "inch":  # a plain TIFF, 300 dots an inch
        path = save(tmp_path / "x.tif", PLANES[0], resolution=(300, 300), resolutionunit="INCH")
    else:
        words = {"axes": "YX", "PhysicalSizeX": 1, "PhysicalSizeY": 1}
        words |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
        path = save(tmp_path / "x.ome.tif", PLANES[0], metadata=words)
    assert read(path).pixel_size is None


@pytest.mark.parametrize("names", [["a", "a"], ["a", ""], ["a", "b", "c"]])
def test_names_in_the_file_that_do_not_tell_channels_apart_are_not_known(tmp_path, names):
    words = {"axes": "CYX", "Labels": names}
    image = read(save(tmp_path / "x.tif", PLANES[:2], imagej=True, metadata=words))
    assert image.channels == ()
    assert image.names == ("channel_1", "channel_2")


def test_given_names_take_the_place_of_those_in_the_file(tmp_path):
    path = save(tmp_path / "x.ome.tif", PLANES[:2], metadata={"axes": "CYX"}, **GREY)
    assert read(path, channel_names=["b", "a"]).channels == ("b", "a")
    for wrong in (["a"], ["a", "b", "c"], ["a", "a"]):
        with pytest.raises(InputError, match=r"x\.ome\.tif: 2 channels, but the names a"):
            read(path, channel_names=wrong)


UNNAMED = {
    "pages": (PLANES[:3], {"metadata": None}, LAST[..., :3]),
    "channels first": (PLANES[:4], {}, LAST[..., :4]),
    "channels last": (LAST[..., :2], {}, LAST[..., :2]),
    "one channel last": (LAST[..., :1], {}, LAST[..., 0]),
    "one page": (PLANES[:1], {}, LAST[..., 0]),
    "samples": (LAST, {"planarconfig": "contig"}, LAST),
    "planes": (PLANES, {"planarconfig": "separate"}, LAST),
}


@pytest.mark.parametrize("kind", UNNAMED)
def test_few_planes_of_an_axis_without_a_name_are_channels(tmp_path, kind):
    image, options, expected = UNNAMED[kind]
    found = read(save(tmp_path / "x.tif", image, **GREY, **options)).pixels
    assert np.array_equal(found, expected)


AMBIGUOUS = {
    "more than four": (PLANES, {}, "CYX or YXC"),
    "more than four pages": (PLANES, {"metadata": None}, "CYX"),
    "two short axes": (np.zeros((3, 3, 100), np.uint8), {}, "CYX or YXC"),
    "first or last": (np.zeros((3, 100, 3), np.uint8), {}, "CYX or YXC"),
    "one plane of seven": (PLANES[None], {}, "ZCYX or ZYXC"),
    "depth": (PLANES, {"imagej": True, "metadata": {"axes": "ZYX"}}, "CYX"),
    "time": (PLANES, {"ome": True, "metadata": {"axes": "TYX"}}, "CYX"),
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_axes_that_cannot_be_told_are_asked_for_and_can_be_given(tmp_path, kind):
    image, options, proposed = AMBIGUOUS[kind]
    path = save(tmp_path / "x.tif", image, **GREY, **options)
    with pytest.raises(InputError, match=rf"^{path}: .* give --axes {proposed}$"):
        read(path)
    for axes in proposed.split(" or "):
        found = read(path, axes=axes.lower()).pixels
        assert np.array_equal(found, np.moveaxis(image.squeeze(), axes.strip("Z").index("C"), -1))


@pytest.mark.parametrize(
    ("axes", "what"), [("ZCYX", "2 planes in depth"), ("TCYX", "2 time points")]
)
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_a_stack_is_refused_by_name(tmp_path, kind, axes, what):
    image = np.stack([PLANES, PLANES])
    path = save(tmp_path / "x.tif", image, metadata={"axes": axes}, **GREY, **{kind: True})
    with pytest.raises(InputError, match=rf"x\.tif: a stack of {what} \(axis {axes[0]}\), .* file"):
        read(path)


@given(st.permutations("CYXZ"))
def test_given_axes_are_put_in_order(tmp_path_factory, order):
    path, axes = tmp_path_factory.getbasetemp() / "order.tif", "".join(order)
    small = PLANES[:, :5, :6]
    save(path, np.einsum(f"cyxz->{axes.lower()}", small[..., None]), **GREY)
    assert np.array_equal(read(path, axes=axes).pixels, np.moveaxis(small, 0, -1))


@pytest.mark.parametrize("axes", ["", "CY", "CYXX", "CSYX", "C,Y,X", "YYX", "CYX1"])
def test_letters_that_name_no_image_are_refused(axes):
    with pytest.raises(InputError, match=r"^axes '.*: (expected one Y and one X|two axes)"):
        check_letters(axes)


@pytest.mark.parametrize(
    ("axes", "message"),
    [("YX", r"3 axes of the lengths \(7, 40, 50\), but --axes YX names 2"), ("ZYX", "a stack of")],
)
def test_axes_that_do_not_fit_to_the_file_are_refused(tmp_path, axes, message):
    with pytest.raises(InputError, match=rf"x\.tif: {message}"):
        read(save(tmp_path / "x.tif", PLANES, **GREY), axes=axes)


FOUR = np.dstack([COLOUR, np.full((40, 50), 9, np.uint8)])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_only_what_is_opaque_everywhere_loses_its_alpha(tmp_path, suffix):
    path, transparent = tmp_path / f"x{suffix}", FOUR.copy()
    transparent[3, 4, 3] = 8

    def put(image):
        if suffix == ".tif":
            return save(path, image, photometric="rgb", extrasamples=["unassalpha"])
        cv2.imwrite(str(path), image[..., [2, 1, 0, 3]])
        return path

    assert np.array_equal(read(put(FOUR)).pixels, COLOUR)
    with pytest.raises(InputError, match=r"transparent parts or CMYK.* give --axes YX[CS]$"):
        read(put(transparent))
    assert np.array_equal(read(path, axes="YXC").pixels, transparent)


def test_grey_with_an_opaque_alpha_is_grey(tmp_path):
    image = np.dstack([COLOUR[..., 0], np.full((40, 50), 255, np.uint8)])
    path = save(tmp_path / "x.tif", image, extrasamples=["unassalpha"], planarconfig="contig")
    assert np.array_equal(read(path).pixels, COLOUR[..., 0])


def test_several_images_in_one_file_are_refused_but_not_a_thumbnail(tmp_path):
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        file.write(COLOUR, photometric="rgb")
        file.write(COLOUR[::4, ::4], photometric="rgb", subfiletype=1)
    assert np.array_equal(read(tmp_path / "x.tif").pixels, COLOUR)
    with tifffile.TiffWriter(tmp_path / "y.ome.tif") as file:
        file.write(PLANES[0], metadata={"axes": "YX"})
        file.write(PLANES[1], metadata={"axes": "YX"})
    with pytest.raises(InputError, match=r"y\.ome\.tif: 2 images, expected one"):
        read(tmp_path / "y.ome.tif")


def test_planes_that_lie_in_other_files_are_not_read_as_zeros(tmp_path):
    path = save(tmp_path / "x.ome.tif", PLANES[:1], metadata={"axes": "CYX"}, **GREY)
    content = path.read_bytes().replace(b'SizeC="1"', b'SizeC="2"')
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.ome\.tif: planes are missing, or in other files"):
        read(path)


def test_colours_in_each_of_several_channels_are_refused(tmp_path):
    path = save(tmp_path / "x.tif", np.stack([COLOUR, COLOUR]), imagej=True)
    with pytest.raises(InputError, match=r"shape \(2, 40, 50, 3\), .* channels in one axis"):
        read(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_bytes_from_an_archive_are_read_and_refused_like_a_file(tmp_path, suffix, share):
    path = tmp_path / f"x{suffix}"
    cv2.imwrite(str(path), COLOUR)
    content = path.read_bytes()
    image = read(tmp_path / "a.zip" / f"y{suffix}", content=content)
    assert np.array_equal(image.pixels, read_image(path))
    with pytest.raises(InputError, match=rf"a\.zip/y\{suffix}: .*cut short"):
        read(tmp_path / "a.zip" / f"y{suffix}", content=content[: int(len(content) * share)])


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InputError, match=r"x\.txt: no image that can be read, expected .*\.czi"):
        read(tmp_path / "x.txt")
    with pytest.raises(InputError, match=r"y\.png: no such image file"):
        read(tmp_path / "y.png")
    with pytest.raises(InputError, match="1 of 2,000 values are NaN"):
        image = np.zeros((40, 50), np.float32)
        image[0, 0] = np.nan
        read(save(tmp_path / "x.tif", image))


def test_without_the_extra_it_is_said_how_to_install_it(tmp_path):
    (tmp_path / "x.czi").touch()
    program = (
        "import sys; sys.modules['bioio'] = None\n"  # as if it were not installed
        "from cellular.imaging.microscopy import read; read(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "x.czi"],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert "x.czi: .czi files need the extra formats" in done.stderr
    assert "pip install '.[formats]'" in done.stderr
