"""Files of microscopes come with their channels and pixel size; bioio reads them.

CZI is written by Zeiss' own library, ND2 and LIF by hand: see `helpers.microscopes`.
"""

from importlib.util import find_spec

import numpy as np
import pytest
from helpers.microscopes import write_czi, write_lif, write_nd2

from cellular.base.errors import InputError
from cellular.imaging.microscopy import read

pytestmark = [
    pytest.mark.slow,  # bioio takes seconds to import
    pytest.mark.skipif(find_spec("bioio") is None, reason="without the extra formats"),
]

RNG = np.random.default_rng(0)
PLANES = RNG.integers(0, 65_535, (3, 40, 50), np.uint16)
NAMES = ["DAPI", "GFP", "a b"]
WRITERS = {".czi": write_czi, ".nd2": write_nd2, ".lif": write_lif}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("suffix", WRITERS)
def test_files_of_microscopes_are_read(tmp_path, suffix, count):
    path = tmp_path / f"x{suffix}"
    WRITERS[suffix](path, PLANES[:count], 0.25, NAMES[:count])
    for image in (read(path), read(tmp_path / f"a.zip/y{suffix}", content=path.read_bytes())):
        assert np.array_equal(image.pixels, np.moveaxis(PLANES[:count], 0, -1).squeeze())
        assert image.channels == tuple(NAMES[:count])
        assert image.pixel_size == pytest.approx(0.25)


def test_an_nd2_without_calibration_has_no_pixel_size(tmp_path):
    write_nd2(tmp_path / "x.nd2", PLANES[:1], None, NAMES[:1])
    assert read(tmp_path / "x.nd2").pixel_size is None


def test_the_tiles_of_a_czi_are_put_side_by_side(tmp_path):
    write_czi(tmp_path / "x.czi", PLANES[:2], 0.25, ["DAPI"], left=(0, 50), C=(0, 0))
    assert np.array_equal(read(tmp_path / "x.czi").pixels, np.hstack(PLANES[:2]))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({"Z": (0, 1)}, r"a stack of 2 planes in depth \(axis Z\)"),
        ({"T": (0, 1)}, r"a stack of 2 time points \(axis T\)"),
        ({"scenes": (0, 1), "left": (0, 900)}, r"2 images \(scenes\), expected one"),
    ],
)
def test_stacks_and_scenes_of_a_czi_are_refused(tmp_path, place, message):
    write_czi(tmp_path / "x.czi", PLANES[:2], 0.25, [], **place)
    with pytest.raises(InputError, match=rf"x\.czi: {message}"):
        read(tmp_path / "x.czi")


def test_several_images_of_a_lif_are_refused(tmp_path):
    write_lif(tmp_path / "x.lif", PLANES[:1], 0.25, NAMES[:1], images=2)
    with pytest.raises(InputError, match=r"x\.lif: 2 images \(scenes\), expected one"):
        read(tmp_path / "x.lif")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_of_a_microscope_that_is_cut_short_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"x{suffix}"
    WRITERS[suffix](path, PLANES[:2], 0.25, NAMES[:2])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=rf"x\{suffix}: no readable \{suffix} file, or cut short"):
        read(path)
