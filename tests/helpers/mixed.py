"""A folder of images of many formats and sizes, good, odd and broken."""

import zipfile
from pathlib import Path

import cv2
import numpy as np
import tifffile

from helpers.annotations import write_png

BROKEN = "broken"


def write_mixed(folder: Path, corners: list[np.ndarray]) -> None:
    """Write 30 images to `folder`, and two more to more.zip beside it.

    Parameters
    ----------
    corners : eight images, (160, 160, 3) uint8
    """
    folder.mkdir()
    first, second, third, fourth, *_, last = corners
    planes = np.moveaxis(second, 2, 0)
    _png(folder, first, third)
    _tiff(folder, second, fourth)
    _ome(folder, planes)
    whole = write_png(folder / f"{BROKEN}.png", first).read_bytes()
    (folder / f"{BROKEN}.png").write_bytes(whole[: len(whole) // 2])
    with zipfile.ZipFile(folder.with_name("more.zip"), "w") as opened:
        opened.writestr("in a/zip.png", cv2.imencode(".png", last[..., ::-1])[1].tobytes())
        opened.writestr("in a/second zip.png", cv2.imencode(".png", last[..., 1])[1].tobytes())


def _png(folder: Path, first: np.ndarray, third: np.ndarray) -> None:
    bright = first.copy()
    bright[:100] = 255
    for name, image in {
        "colour.png": first,
        "grey.png": first[..., 1],
        "photo.jpg": first,
        "photo of grey.jpeg": first[..., 1],
        "deep/er/nested.png": third,
        "a name with spaces.png": third,
        "Präparat 5 µ.png": third[..., 1],
        "twin.png": third,
        "twin.jpg": third,
        "dots.in.it.png": third,
        "plan.json.png": third,
        "dark.png": first * 0,
        "tiny.png": first[:12, :14],
        "wide.png": first[:60],
        "bright.png": bright,
    }.items():
        write_png(folder / name, image)


def _tiff(folder: Path, second: np.ndarray, fourth: np.ndarray) -> None:
    green, planes = second[..., 1], np.moveaxis(second, 2, 0)
    write = tifffile.imwrite
    write(folder / "colour.8.tif", second, photometric="rgb")
    write(folder / "colour.16.tif", second.astype(np.uint16) * 257, photometric="rgb")
    write(folder / "grey 8.tif", green)
    write(folder / "grey 16.tif", green.astype(np.uint16) * 100)
    write(folder / "fractions.tif", green / np.float32(255))
    write(folder / "big-endian.tif", green.astype(">u2"), byteorder=">")
    write(folder / "tiles.tif", fourth, tile=(64, 64), compression="zlib", photometric="rgb")
    write(folder / "channels first.tif", planes, photometric="minisblack")
    write(folder / "flat.tif", np.full((60, 60), 7, np.uint8))
    write(
        folder / "imagej.tif",
        planes,
        imagej=True,
        resolution=(4, 4),
        metadata={"axes": "CYX", "unit": "um", "Labels": ["red", "green", "blue"]},
    )


def _ome(folder: Path, planes: np.ndarray) -> None:
    size = {f"PhysicalSize{axis}": 0.5 for axis in "XY"}
    for name, shown in {
        "named": planes,
        "two": planes[:2],
        "seven": np.concatenate([planes, planes, planes[:1]]),
        "one": planes[1:2],
    }.items():
        channels = {"Name": [f"dye {number}" for number in range(1, len(shown) + 1)]}
        metadata = {"axes": "CYX", "Channel": channels, **size}
        path = folder / "ome" / f"{name}.ome.tif"
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(path, shown, ome=True, metadata=metadata, photometric="minisblack")
