"""Local data: the user's own folder of images and masks, in one of several layouts."""

import io
import logging
import math
import mimetypes
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cellular.base.errors import Faults, InputError
from cellular.fetching.params import DataParams
from cellular.fetching.remotes import user_path
from cellular.imaging.fields import MASK_FILE, MASKS, find_masks, is_field, unused
from cellular.imaging.images import (
    check_labels,
    image_files,
    is_mask,
    label_files,
    others,
    read_labels,
    write_tiff,
)
from cellular.imaging.masks import check_cells, mask_files, relabel

log = logging.getLogger(__name__)

IMG = "_img"
SEG = "_seg"
CELLPOSE_MASKS = ("_cp_masks", MASKS)  # as Cellpose's command line and its training name them
CELLPOSE_OTHER = ("_flows", "_cp_flows", "_cp_output", "_cp_outlines")  # its other output files
Reader = Callable[[Path], np.ndarray]  # of a file with a label map
LAYOUTS = {
    "paper": "images/<field>.<ext> and masks/<field>/<class>/<name>.png",
    "labels": "images/<field>.<ext> and masks/<field>.<png|tif>",
    "cellpose": f"<field>.<ext> or <field>{IMG}.<ext> beside <field>{MASKS}.<png|tif>",
    "seg": f"<field>.<ext> beside <field>{SEG}.npy",
}


def local_folder(path: str) -> Path:
    """Return the folder that `data.path` names."""
    return user_path(path)


def import_folder(params: DataParams, output: Path) -> None:
    """Write a user's folder to `<output>/images` and `<output>/masks`, as `prepare` expects them.

    Raises
    ------
    InputError
        One error that lists every fault: an image or masks without the other, a binary mask in
        place of a label map, a file that cannot be read.
    """
    if params.path is None:
        raise InputError("dataset local needs data.path, the folder of your images and masks")
    folder = local_folder(params.path)
    if not folder.is_dir():
        raise InputError(
            f"data.path {params.path!r}: there is no folder {folder.resolve()}; give the folder of "
            "your images and masks (a relative path starts at the repository's root)"
        )
    layout = recognise(folder) if params.layout == "auto" else params.layout
    log.info("%s: layout %s, %s", folder, layout, LAYOUTS[layout])
    for name in ("images", "masks"):
        (output / name).mkdir(parents=True)
    READERS[layout](folder, output)
    if not any((output / "masks").iterdir()):
        raise InputError(f"{folder}: nothing in the layout {layout}, {LAYOUTS[layout]}")


def recognise(folder: Path) -> str:
    """Return the layout of a folder, a key of `LAYOUTS`.

    Raises
    ------
    InputError
        If its files have none of the layouts, or several.
    """
    found = []
    if _images_of(folder) and (folder / "masks").is_dir():
        inside = [path for path in (folder / "masks").iterdir() if not path.name.startswith(".")]
        found += ["paper"] if any(path.is_dir() for path in inside) else []
        found += ["labels"] if image_files(folder / "masks") else []
    if any(path.stem.endswith(CELLPOSE_MASKS) for path in image_files(folder)):
        found.append("cellpose")
    if any(folder.glob(f"*{SEG}.npy")):
        found.append("seg")
    if len(found) == 1:
        return found[0]
    known = "; ".join(f"{name}: {what}" for name, what in LAYOUTS.items())
    what = f"files in several layouts ({', '.join(found)})" if found else "no layout that is known"
    raise InputError(f"{folder}: {what}; name one with data.layout. The layouts are {known}")


def _read_paper(folder: Path, output: Path) -> None:
    _copy_images(folder, output)
    fields, left = find_masks(folder / "masks")
    _check_used(folder, left)
    for field in fields:
        files = [path for inside in field.classes.values() for path in mask_files(inside)]
        for path in [field.label_map] if field.label_map else files:
            target = output / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _read_labels(folder: Path, output: Path) -> None:
    _copy_images(folder, output)
    _check_used(folder, unused(folder / "masks", is_mask, f"<field>{MASK_FILE}"))
    found = _by_field(folder, label_files(folder / "masks"), MASKS)
    _write_labels(folder, found, read_labels, output)


def _read_cellpose(folder: Path, output: Path) -> None:
    files = [path for path in label_files(folder) if path.stem.endswith(CELLPOSE_MASKS)]
    _copy_pairs(folder, _by_field(folder, files, *CELLPOSE_MASKS), read_labels, output)


def _read_seg(folder: Path, output: Path) -> None:
    _copy_pairs(
        folder, _by_field(folder, sorted(folder.glob(f"*{SEG}.npy")), SEG), read_seg, output
    )


READERS = {
    "paper": _read_paper,
    "labels": _read_labels,
    "cellpose": _read_cellpose,
    "seg": _read_seg,
}


def _images_of(folder: Path) -> Path | None:
    """Return the folder of images beside `masks`; the authors' archive names it images-color."""
    found = [folder / name for name in ("images", "images-color") if (folder / name).is_dir()]
    return found[0] if found else None


def _copy_images(folder: Path, output: Path) -> None:
    """Copy the images of a layout that has a folder of images and one of masks."""
    source = _images_of(folder)
    if source is None or not (folder / "masks").is_dir():
        raise InputError(
            f"{folder}: expected a folder images and a folder masks in it; change data.path or "
            "data.layout"
        )
    _check_used(folder, unused(source, is_field, "<field>.<png|jpg|tif>"))
    for path in image_files(source):
        shutil.copyfile(path, output / "images" / path.name)


def _check_used(folder: Path, left: list[str]) -> None:
    """Raise `InputError` if the user's folder holds what the layout has no place for."""
    Faults(f"{sentence}; move it elsewhere" for sentence in left).raise_all(folder)


def _copy_pairs(folder: Path, found: dict[str, Path], read: Reader, output: Path) -> None:
    """Copy the images beside the label maps in one folder, and write those label maps."""
    beside = (*CELLPOSE_MASKS, *CELLPOSE_OTHER)
    files = [path for path in image_files(folder) if not path.stem.endswith(beside)]
    images = _by_field(folder, files, IMG)
    used = {*files, *found.values()}
    faults = Faults(f"{found[field]}: no image beside it" for field in found.keys() - images)
    faults += [f"{images[field]}: no masks beside it" for field in images.keys() - found]
    for path in others(folder, used.__contains__):
        field = next(
            (path.stem.removesuffix(e) for e in (*beside, SEG) if path.stem.endswith(e)), ""
        )
        if field in found and (is_mask(path) or path.suffix in (".npy", ".txt")):
            continue  # what Cellpose writes beside a field that is used
        if (mimetypes.guess_type(path.name)[0] or "").startswith("image/"):
            faults.append(f"{path}: not used; move it elsewhere")
        else:
            log.warning("%s: not used", path)
    faults.sort()
    faults.raise_all(folder)
    for field, path in images.items():
        shutil.copyfile(path, output / "images" / f"{field}{path.suffix}")
    _write_labels(folder, found, read, output)


def _by_field(folder: Path, paths: list[Path], *endings: str) -> dict[str, Path]:
    """Return files by field: the file's name without the first of the `endings` that it has.

    Raises
    ------
    InputError
        If there are several files of one field.
    """
    fields: dict[str, list[Path]] = {}
    for path in paths:
        ending = next((ending for ending in endings if path.stem.endswith(ending)), "")
        fields.setdefault(path.stem.removesuffix(ending), []).append(path)
    Faults(
        f"{' and '.join(map(str, several))}: {len(several)} files of one field; keep one"
        for several in fields.values()
        if len(several) > 1
    ).raise_all(folder)
    return {field: found for field, (found,) in fields.items()}


def _write_labels(folder: Path, found: dict[str, Path], read: Reader, output: Path) -> None:
    """Write the label map of each field as `<output>/masks/<field>.tif`."""

    def write(field: str) -> None:
        labels = read(found[field])
        check_cells(found[field], labels)
        write_tiff(output / "masks" / f"{field}.tif", relabel(labels, found[field]))

    faults = Faults()
    faults.map(write, sorted(found), "import")
    faults.raise_all(folder)


class _Stored:
    """Stands in for anything of numpy's in a pickle: it keeps what the file says, and runs nothing.

    numpy itself would trust what a damaged file says of sizes and types, and the process would die.
    """

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state


# The one in Python, since that in C sets as much memory aside as a damaged file asks for.
class _Unpickler(pickle._Unpickler):
    """An unpickler of numpy arrays and plain Python values that never runs code from the file."""

    KNOWN = (
        *(("numpy", "ndarray"), ("numpy", "dtype")),
        *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
        *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    )

    def find_class(self, module: str, name: str) -> type[_Stored]:
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which is not run")
        return _Stored


def read_seg(path: Path) -> np.ndarray:
    """Return the label map, (H, W) integer, in a `_seg.npy` that Cellpose's GUI saved.

    Such a file is a pickled dictionary; only arrays and plain values are unpickled.

    Raises
    ------
    InputError
        If the file is damaged, holds anything else, or its masks are no label map of one plane.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        version = np.lib.format.read_magic(content)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        read_header(content)
        whole = _Unpickler(content).load()
        (values,) = whole.state[4]  # of an array without axes, as numpy saves a dictionary
        labels = _array(values["masks"])
    except Exception as error:  # a damaged pickle can raise any
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: the masks of Cellpose's GUI cannot be read ({reason}); save the file again "
            "in the GUI"
        ) from None
    check_labels(path, labels)
    return labels


def _array(stored: _Stored) -> np.ndarray:
    """Return the array of numbers that was stored, after checking that its bytes are all there."""
    _, shape, dtype, by_column, data = stored.state
    kind, order = dtype.arguments[0], dtype.state[1]
    if not re.fullmatch(r"b1|[iuf][1248]", kind) or order not in "<>|=":
        raise ValueError(f"its masks are of the type {kind}, expected whole numbers")
    values = np.frombuffer(data, np.dtype(order + kind))
    if values.size != math.prod(shape):
        raise ValueError(f"it has {values.size:,} values for masks of shape {shape}")
    return values.reshape(shape, order="F" if by_column else "C").copy()  # one that can be written
