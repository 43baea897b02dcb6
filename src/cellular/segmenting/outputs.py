"""Outputs: what is written for each image, for Fiji, QuPath, Python and the eye."""

import hashlib
import json
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import tifffile
from roifile import ROI_TYPE, ImagejRoi

from cellular.base.files import together
from cellular.imaging.images import MOST_OBJECTS
from cellular.imaging.microscopy import Image
from cellular.imaging.pictures import grey, palette_image, percentiles, plane
from cellular.scoring.boundaries import outlines
from cellular.segmenting.polygons import Polygon, polygons_of

SIDE = 1024  # pixels of an overlay
YELLOW = (240, 228, 66)  # the brightest of Okabe and Ito's colours (jfly.uni-koeln.de/color)
MOVE, DRAW, CLOSE = 0, 1, 4  # steps of Java's PathIterator, which ImageJ stores shapes as
# Level of compression. With the highest one, the overlay of a real field is an eighth smaller, and
# takes 230 ms on a 2-core CPU (AMD EPYC, AVX2 only): as long as all files do with this one.
FASTEST = 1


def files_of(output: Path, name: str) -> dict[str, Path]:
    """Return where the files of an image go.

    Parameters
    ----------
    output : the folder of all results
    name : of the image: its path in the folder of images, without ending and with slashes
    """
    return {
        "labels": output / "labels" / f"{name}.ome.tif",
        "rois": output / "rois" / f"{name}.zip",
        "geojson": output / "geojson" / f"{name}.geojson",
        "overlay": output / "overlays" / f"{name}.png",
    }


def write_all(
    output: Path, name: str, labels: np.ndarray, image: Image, pixel_size: float | None
) -> None:
    """Write the files of an image, `files_of`: all of them, or none.

    Parameters
    ----------
    output, name : as in `files_of`
    labels : (H, W) label map of unsigned integers; numbers may be missing
    image : of the same height and width
    pixel_size : edge of a pixel in µm; None: not known

    Raises
    ------
    InputError
        If a file cannot be written, or another process writes it now.
    """
    polygons = polygons_of(labels)
    with together(*files_of(output, name).values()) as (label_map, rois, geojson, picture):
        write_labels_ome(label_map, labels, pixel_size)
        write_rois(rois, polygons)
        write_geojson(geojson, polygons, name)
        overlay(image.pixels, labels).save(picture, compress_level=FASTEST)


def write_labels_ome(path: Path, labels: np.ndarray, pixel_size: float | None) -> None:
    """Write a label map as compressed OME-TIFF: uint16, or uint32 if a label is above 65,535.

    The same label map always gives the same bytes.

    Parameters
    ----------
    labels : (H, W) label map of unsigned integers
    pixel_size : edge of a pixel in µm; None: not known
    """
    labels = labels.astype(np.uint16 if labels.max(initial=0) <= MOST_OBJECTS else np.uint32)
    pixels = hashlib.sha256(labels.tobytes()).hexdigest()
    # Without these two, tifffile writes a random identifier and its own version.
    described = tifffile.OmeXml(UUID=str(_identifier(pixels)), Creator="CELLULAR experiments")
    size = {
        f"PhysicalSize{axis}{what}": value
        for axis in "XY"
        for what, value in (("", pixel_size), ("Unit", "µm"))
        if pixel_size is not None
    }
    height, width = labels.shape
    described.addimage(labels.dtype, labels.shape, (1, 1, 1, height, width, 1), axes="YX", **size)
    tifffile.imwrite(
        path,
        labels,
        photometric="minisblack",
        compression="zlib",
        compressionargs={"level": FASTEST},
        description=described.tostring(declaration=True).encode(),
        metadata=None,
        software=False,
    )


def write_rois(path: Path, polygons: Mapping[int, list[Polygon]]) -> None:
    """Write the outlines of cells as a zip of ImageJ's ROIs, each named by its label.

    A cell in one piece without holes is a traced ROI, any other a composite one. Their areas are
    those of the mask. Without cells the zip is empty: then ImageJ says that it holds no ROIs.

    Parameters
    ----------
    polygons : from `cellular.segmenting.polygons.polygons_of`
    """
    with zipfile.ZipFile(path, "w") as archive:
        for label, pieces in polygons.items():
            entry = zipfile.ZipInfo(f"{label}.roi")  # its date is 1980, not now
            entry.create_system = 3  # Unix, on every system
            content = _roi(label, pieces).tobytes()
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED, FASTEST)


def _roi(label: int, pieces: list[Polygon]) -> ImagejRoi:
    rings = [ring for piece in pieces for ring in piece]
    if len(rings) == 1:
        roi = ImagejRoi.frompoints(rings[0], name=str(label))
        roi.roitype = ROI_TYPE.TRACED
        return roi
    steps = []
    for ring in rings:
        way = np.full(len(ring), DRAW)
        way[0] = MOVE
        steps.append(np.append(np.column_stack([way, ring]), CLOSE))
    shape = np.concatenate(steps).astype(np.float32)
    corners = np.concatenate(rings)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return ImagejRoi(
        roitype=ROI_TYPE.RECT,  # the bounds, as all shapes have
        version=226,
        name=str(label),
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        shape_roi_size=shape.size,
        multi_coordinates=shape,
    )


def write_geojson(path: Path, polygons: Mapping[int, list[Polygon]], name: str) -> None:
    """Write the outlines of cells as GeoJSON for QuPath, a cell object each, named by its label.

    Parameters
    ----------
    polygons : from `cellular.segmenting.polygons.polygons_of`
    name : of the image; with the label, it makes the identifier of a cell
    """
    features = [
        {
            "type": "Feature",
            "id": str(_identifier(f"{name}/{label}")),
            "geometry": _geometry(pieces),
            "properties": {"objectType": "cell", "name": str(label)},
        }
        for label, pieces in polygons.items()
    ]
    content = {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _geometry(pieces: list[Polygon]) -> dict:
    closed = [[[*ring.tolist(), ring[0].tolist()] for ring in piece] for piece in pieces]
    if len(closed) == 1:
        return {"type": "Polygon", "coordinates": closed[0]}
    return {"type": "MultiPolygon", "coordinates": closed}


def _identifier(what: str) -> uuid.UUID:
    """Return an identifier that is always the same for the same text."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"cellular-experiments:{what}")


def overlay(image: np.ndarray, labels: np.ndarray) -> PIL.Image.Image:
    """Draw the outlines of cells on an image.

    Parameters
    ----------
    image : (H, W) or (H, W, C); all channels count the same
    labels : (H, W) label map

    Returns
    -------
    palette image, grey with yellow outlines; its longer side has at most 1024 pixels
    """
    scale = min(1.0, SIDE / max(labels.shape))
    height, width = (max(1, round(side * scale)) for side in labels.shape)
    shown = cv2.resize(plane(image), (width, height), interpolation=cv2.INTER_AREA)
    canvas = grey(shown, percentiles(image), greys=255)
    rows, columns = (
        (np.arange(new) + 0.5) * old // new
        for new, old in zip((height, width), labels.shape, strict=True)
    )
    canvas[outlines(labels[np.ix_(rows.astype(int), columns.astype(int))])] = 255
    return palette_image(canvas, [YELLOW])
