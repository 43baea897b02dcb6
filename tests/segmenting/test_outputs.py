"""What is written for each image: the same cells in every format, the same bytes in every run."""

import io
import json
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from helpers.label_maps import label_maps
from hypothesis import given
from PIL import Image as Picture
from roifile import ROI_TYPE, ImagejRoi, roiread
from shapely.geometry import shape

from cellular.base.errors import InputError
from cellular.base.files import digest_folder
from cellular.imaging.images import read_image, read_labels
from cellular.imaging.microscopy import Image
from cellular.segmenting.outputs import (
    YELLOW,
    files_of,
    overlay,
    write_all,
    write_geojson,
    write_labels_ome,
    write_rois,
)
from cellular.segmenting.polygons import polygons_of

FIELD = "Timepoint_003_220518-ST_C03_s3"


def odd_cells() -> np.ndarray:
    """A cell at the frame, one with a hole, one in two pieces, a line and a pixel."""
    labels = np.zeros((30, 40), np.uint16)
    labels[:6, :7] = 1
    labels[10:20, 10:20], labels[13:16, 13:16] = 2, 0
    labels[25:28, 2:5] = labels[20:24, 8:12] = 4
    labels[2, 20:33] = 5
    labels[29, 39] = 12
    return labels


def geometry(roi: ImagejRoi) -> shapely.Geometry:
    """The area that ImageJ fills: where an odd number of rings is around."""
    rings = roi.coordinates(multi=True)
    area = shapely.Polygon()
    for ring in rings if isinstance(rings, list) else [rings]:
        area = area.symmetric_difference(shapely.Polygon(ring))
    return area


def filled(area: shapely.Geometry, frame: tuple) -> np.ndarray:
    """The pixels whose centres lie in an area."""
    y, x = np.indices(frame) + 0.5
    return shapely.contains_xy(area, x, y)


def written_rois(folder: Path, labels: np.ndarray) -> list[ImagejRoi]:
    write_rois(folder / "cells.zip", polygons_of(labels))
    return roiread(folder / "cells.zip")


def written_features(folder: Path, labels: np.ndarray, name: str = "a") -> list[dict]:
    write_geojson(folder / "cells.geojson", polygons_of(labels), name)
    content = json.loads((folder / "cells.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    return content["features"]


@given(label_maps)
def test_rois_and_features_cover_the_pixels_of_their_cells(tmp_path_factory, labels):
    folder = tmp_path_factory.mktemp("written")
    rois, features = written_rois(folder, labels), written_features(folder, labels)
    numbers = np.unique(labels[labels > 0]).tolist()
    assert [int(roi.name) for roi in rois] == numbers
    assert [int(feature["properties"]["name"]) for feature in features] == numbers
    for number, roi, feature in zip(numbers, rois, features, strict=True):
        mask = labels == number
        assert geometry(roi).area == mask.sum()
        assert np.array_equal(filled(geometry(roi), labels.shape), mask)
        outline = shape(feature["geometry"])
        assert outline.is_valid
        assert outline.area == mask.sum()
        assert np.array_equal(filled(outline, labels.shape), mask)


def test_cells_in_one_ring_are_traced_rois_and_others_composite_ones(tmp_path):
    rois = written_rois(tmp_path, odd_cells())
    kinds = {roi.name: (roi.roitype, roi.composite) for roi in rois}
    traced, composite = (ROI_TYPE.TRACED, False), (ROI_TYPE.RECT, True)
    assert kinds == {"1": traced, "2": composite, "4": composite, "5": traced, "12": traced}


def test_rois_keep_their_names_in_the_zip_and_hold_no_date(tmp_path):
    written_rois(tmp_path, odd_cells())
    with zipfile.ZipFile(tmp_path / "cells.zip") as archive:
        assert archive.namelist() == ["1.roi", "2.roi", "4.roi", "5.roi", "12.roi"]
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_rois_right_of_60_000_pixels(tmp_path):
    labels = np.zeros((3, 66_000), np.uint16)
    labels[1, 65_000:65_800] = 1
    labels[1, 64_000:64_100] = labels[1, 64_200:64_300] = 2
    bounds = [geometry(roi).bounds for roi in written_rois(tmp_path, labels)]
    assert bounds == [(65_000, 1, 65_800, 2), (64_000, 1, 64_300, 2)]


def test_features_are_cells_of_qupath_with_identifiers_of_their_own(tmp_path):
    features = written_features(tmp_path, odd_cells(), "plate 1/a")
    assert {feature["type"] for feature in features} == {"Feature"}
    assert {feature["properties"]["objectType"] for feature in features} == {"cell"}
    kinds = [feature["geometry"]["type"] for feature in features]
    assert kinds == ["Polygon", "Polygon", "MultiPolygon", "Polygon", "Polygon"]
    identifiers = [uuid.UUID(feature["id"]) for feature in features]
    others = written_features(tmp_path, odd_cells(), "plate 2/a")
    assert len({*identifiers, *(uuid.UUID(feature["id"]) for feature in others)}) == 10


@pytest.mark.parametrize("most, kind", [(65_535, np.uint16), (65_536, np.uint32)])
def test_label_maps_are_ome_tiff_with_their_pixel_size(tmp_path, most, kind):
    labels = np.arange(most - 19, most + 1, dtype=np.uint32).reshape(4, 5)
    write_labels_ome(tmp_path / "a.ome.tif", labels, 0.1733)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_ome
        assert file.series[0].axes == "YX"
        assert file.series[0].dtype == kind
        assert np.array_equal(file.asarray(), labels)
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert "DateTime" not in file.pages[0].tags
    assert pixels["PhysicalSizeX"] == pixels["PhysicalSizeY"] == 0.1733
    assert pixels["PhysicalSizeXUnit"] == pixels["PhysicalSizeYUnit"] == "µm"
    assert np.array_equal(read_image(tmp_path / "a.ome.tif"), labels)


def test_a_label_map_without_a_pixel_size_names_none(tmp_path):
    write_labels_ome(tmp_path / "a.ome.tif", odd_cells(), None)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert "PhysicalSize" not in file.ome_metadata
    assert np.array_equal(read_labels(tmp_path / "a.ome.tif"), odd_cells())


def test_label_maps_of_other_cells_have_other_identifiers(tmp_path):
    found = set()
    for number in (1, 2, 2):
        write_labels_ome(tmp_path / "a.ome.tif", np.full((2, 2), number, np.uint16), None)
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
            found.add(tifffile.xml2dict(file.ome_metadata)["OME"]["UUID"])
    assert len(found) == 2


def test_an_overlay_draws_the_outlines_of_cells_on_the_grey_image():
    labels = np.zeros((8, 8), np.uint16)
    labels[1:6, 1:6] = 3
    picture = overlay(np.arange(64).reshape(8, 8), labels)
    assert picture.mode == "P" and picture.size == (8, 8)
    colours = np.asarray(picture.convert("RGB"))
    inside = np.zeros((8, 8), bool)
    inside[2:5, 2:5] = True
    assert np.array_equal((colours == YELLOW).all(axis=2), (labels > 0) & ~inside)
    others = colours[inside | (labels == 0)]
    assert (others == others[:, :1]).all()  # grey


@pytest.mark.parametrize(
    "frame, size",
    [((1500, 3000), (1024, 512)), ((3000, 1), (1, 1024)), ((40, 30), (30, 40))],
)
@pytest.mark.parametrize("channels", [(), (1,), (2,), (5,)])
@pytest.mark.parametrize("kind", [np.uint32, np.uint16])
def test_overlays_of_all_sizes_and_channels(frame, size, channels, kind):
    labels = np.ones(frame, kind)
    assert overlay(np.ones(frame + channels, np.uint16), labels).size == size


@pytest.mark.parametrize("labels", [odd_cells(), odd_cells() * 0, odd_cells().astype(np.uint32)])
def test_all_files_of_an_image_are_the_same_bytes_in_every_run(tmp_path, labels):
    image = Image(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8))
    for folder in ("once", "again"):
        write_all(tmp_path / folder, "plate 1/well A", labels, image, 0.2)
        files = files_of(tmp_path / folder, "plate 1/well A")
        written = sorted(path for path in (tmp_path / folder).rglob("*") if path.is_file())
        assert written == sorted(files.values())
    assert digest_folder(tmp_path / "once") == digest_folder(tmp_path / "again")
    assert np.array_equal(read_image(files["labels"]), labels)
    assert len(roiread(files["rois"])) == len(np.unique(labels)) - 1
    assert Picture.open(io.BytesIO(files["overlay"].read_bytes())).size == (40, 30)


def test_files_lie_in_folders_by_kind_below_the_folders_of_the_image():
    found = {kind: path.as_posix() for kind, path in files_of(Path("out"), "day 1/a.b").items()}
    assert found == {
        "labels": "out/labels/day 1/a.b.ome.tif",
        "rois": "out/rois/day 1/a.b.zip",
        "geojson": "out/geojson/day 1/a.b.geojson",
        "overlay": "out/overlays/day 1/a.b.png",
    }


def test_no_file_appears_if_one_cannot_be_written(tmp_path):
    (tmp_path / "overlays").write_text("a file where a folder should be")
    with pytest.raises(InputError, match=r"overlays.*cannot be written"):
        write_all(tmp_path, "a", odd_cells(), Image(np.ones((30, 40))), None)
    assert [path.name for path in tmp_path.rglob("*")] == ["overlays"]


def test_a_real_field(sample, tmp_path):
    labels = read_labels(sample / "masks" / f"{FIELD}.tif")
    image = Image(read_image(sample / "images" / f"{FIELD}.jpg"), pixel_size=0.1733)
    write_all(tmp_path, FIELD, labels, image, image.pixel_size)
    files, areas = files_of(tmp_path, FIELD), np.bincount(labels.ravel())
    for roi in roiread(files["rois"]):
        assert geometry(roi).area == areas[int(roi.name)]
    for feature in json.loads(files["geojson"].read_text())["features"]:
        outline = shape(feature["geometry"])
        assert outline.is_valid and outline.area == areas[int(feature["properties"]["name"])]
    assert np.array_equal(tifffile.imread(files["labels"]), labels)
    assert Picture.open(files["overlay"]).size == (1024, 1024)
