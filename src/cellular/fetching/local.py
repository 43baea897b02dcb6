"""Local data: a user's own folder of images and masks, in whichever layout it is."""

import io
import logging
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from cellular.base.errors import Faults, InputError
from cellular.fetching.params import DataParams
from cellular.fetching.remotes import repository
from cellular.imaging.fields import MASKS
from cellular.imaging.images import image_files, label_files, read_labels
from cellular.imaging.masks import check_separated

log = logging.getLogger(__name__)

IMG = "_img"
SEG = "_seg"
CELLPOSE_MASKS = ("_cp_masks", MASKS)  # as Cellpose's command line and its training name them
CELLPOSE_OTHER = ("_flows", "_cp_flows", "_cp_output", "_cp_outlines")  # what else it writes
LAYOUTS = {
    "paper": "images/<field>.<ext> and masks/<field>/<class>/<name>.png",
    "labels": "images/<field>.<ext> and masks/<field>.<png|tif>",
    "cellpose": f"<field>.<ext> or <field>{IMG}.<ext> beside <field>{MASKS}.<png|tif>",
    "seg": f"<field>.<ext> beside <field>{SEG}.npy",
}


def images_of(folder: Path) -> Path | None:
    """Return the folder of images beside `masks`; the authors' archive names it images-color."""
    found = [folder / name for name in ("images", "images-color") if (folder / name).is_dir()]
    return found[0] if found else None


def recognise(folder: Path) -> str:
    """Return the layout of a folder, a key of `LAYOUTS`; `InputError` if it is none, or several."""
    found = []
    if images_of(folder) and (folder / "masks").is_dir():
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
    what = f"several layouts ({', '.join(found)})" if found else "no layout that is known"
    raise InputError(f"{folder}: {what}; name one with data.layout. Known are {known}")


def import_folder(params: DataParams, output: Path) -> None:
    """Write a user's folder to `<output>/images` and `<output>/masks`, as `prepare` expects them.

    Raises
    ------
    InputError
        One error that tells all faults: an image or masks without the other, masks that are one
        mask and no label map, files that cannot be read.
    """
    if params.path is None:
        raise InputError("dataset local needs data.path, the folder of your images and masks")
    # In a temporary copy of the repository a relative path still means the user's folder.
    folder = repository() / Path(params.path).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder (data.path)")
    layout = recognise(folder) if params.layout == "auto" else params.layout
    log.info("%s: layout %s, %s", folder, layout, LAYOUTS[layout])
    images, masks = output / "images", output / "masks"
    for made in (images, masks):
        made.mkdir(parents=True)
    if layout in ("paper", "labels"):
        origin = images_of(folder)
        if origin is None or not (folder / "masks").is_dir():
            raise InputError(f"{folder}: no images and masks in it; expected {LAYOUTS[layout]}")
        for path in image_files(origin):
            shutil.copyfile(path, images / path.name)
        if layout == "labels":
            found = _by_field(label_files(folder / "masks"), MASKS)
            _write_labels(folder, found, read_labels, masks)
            return
        for path in sorted((folder / "masks").rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                target = masks / path.relative_to(folder / "masks")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        return
    by_field = _by_field(
        [
            path
            for path in image_files(folder)
            if not path.stem.endswith((*CELLPOSE_MASKS, *CELLPOSE_OTHER))
        ],
        IMG,
    )
    if layout == "cellpose":
        files = [path for path in label_files(folder) if path.stem.endswith(CELLPOSE_MASKS)]
        found, read = _by_field(files, *CELLPOSE_MASKS), read_labels
    else:
        found, read = _by_field(sorted(folder.glob(f"*{SEG}.npy")), SEG), read_seg
    faults = Faults(
        f"{path}: no image beside it" for field, path in found.items() if field not in by_field
    )
    faults += [
        f"{path}: no masks beside it" for field, path in by_field.items() if field not in found
    ]
    faults.raise_all(folder)
    for field, path in by_field.items():
        shutil.copyfile(path, images / f"{field}{path.suffix}")
    _write_labels(folder, found, read, masks)


def _by_field(paths: list[Path], *endings: str) -> dict[str, Path]:
    """Return files by field, their names without the first of `endings` that they have.

    Raises `InputError` that names the files if there are several of one field.
    """
    fields: dict[str, list[Path]] = {}
    for path in paths:
        ending = next((ending for ending in endings if path.stem.endswith(ending)), "")
        fields.setdefault(path.stem.removesuffix(ending), []).append(path)
    Faults(
        f"{' and '.join(map(str, several))}: {len(several)} files of one field; keep one"
        for several in fields.values()
        if len(several) > 1
    ).raise_all(paths[0].parent if paths else "")
    return {field: found for field, (found,) in fields.items()}


def _write_labels(
    folder: Path, found: dict[str, Path], read: Callable[[Path], np.ndarray], masks: Path
) -> None:
    faults = Faults()
    for field, path in sorted(found.items()):
        with faults.collect():
            labels = read(path)
            check_separated(path, labels)
            # 32 bits: more objects than a label map can hold are refused by `prepare`.
            tifffile.imwrite(
                masks / f"{field}.tif",
                labels.astype(np.uint32),
                compression="zlib",
                metadata=None,
                software=False,
            )
    faults.raise_all(folder)


class _Arrays(pickle.Unpickler):
    """Unpickles numpy arrays and plain Python values, and nothing that could run code."""

    ALLOWED = frozenset(
        (module, name)
        for package in ("numpy.core", "numpy._core")
        for module, names in {
            f"{package}.multiarray": ("_reconstruct", "scalar"),
            f"{package}.numeric": ("_frombuffer",),
        }.items()
        for name in names
    ) | {("numpy", "ndarray"), ("numpy", "dtype")}

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which is not run")
        return super().find_class(module, name)


def read_seg(path: Path) -> np.ndarray:
    """Return the label map, (H, W) integer, of a `_seg.npy` that Cellpose's GUI saved.

    Such a file is a pickled dictionary; only arrays and plain values are unpickled.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        version = np.lib.format.read_magic(content)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        read_header(content)
        labels = np.asarray(_Arrays(content).load().item()["masks"])
    except (pickle.UnpicklingError, ValueError, EOFError, KeyError, AttributeError, IndexError,
            TypeError, ImportError) as error:  # fmt: skip
        raise InputError(
            f"{path}: no masks of Cellpose's GUI can be read ({' '.join(str(error).split())}); "
            "save it anew"
        ) from None
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path}: masks of shape {labels.shape}, expected one plane of numbers")
    return labels
