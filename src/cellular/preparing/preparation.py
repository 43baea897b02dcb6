"""Preparation: masks as they were annotated become label maps, by class and by split."""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from natsort import natsorted

from cellular.base.errors import Faults, InputError
from cellular.base.files import check_apart, check_new, whole, write_json
from cellular.imaging.fields import (
    ALL,
    CLASSES,
    EXCLUDED,
    MASKS,
    SPLITS,
    TRAINING_SPLITS,
    find_images,
    split_data,
    write_classes,
)
from cellular.imaging.images import (
    copy_image,
    label_files,
    read_image,
    read_labels,
    write_labels,
)
from cellular.imaging.masks import (
    areas,
    check_separated,
    check_size,
    combine_masks,
    load_mask_images,
    mask_files,
    pixels_lost,
    relabel,
)
from cellular.preparing.objects import CellObject, label_map, read_object
from cellular.preparing.params import PrepareParams

# The names that people know from the authors' prepare script, in one place.
__all__ = [
    "combine_masks",
    "copy_corresponding_files",
    "create_directory",
    "load_mask_images",
    "process_masks",
    "split_data",
]

log = logging.getLogger(__name__)


@dataclass
class FieldMasks:
    """Where the masks of one field are: a label map, or class folders with one object a file."""

    name: str
    label_map: Path | None = None
    classes: dict[str, list[Path]] = field(default_factory=dict)


@dataclass
class FieldLabels:
    """What a field's annotation becomes: label maps by class, and what is known of their cells."""

    maps: dict[str, np.ndarray]  # (H, W) uint16, of each class and of all
    classes: list[str] | None = None  # the class of each cell of all; None: not known
    excluded: np.ndarray | None = None  # (H, W) uint16, the cells of excluded classes together


@dataclass
class FieldReport:
    """What became of one field's objects."""

    name: str
    cells: dict[str, int] = field(default_factory=dict)  # by class, and of all
    excluded: int = 0
    empty: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    overlap_pixels: int = 0


def create_directory(path: Path) -> Path:
    """Make a folder and those above it, if they are missing, and return it."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def find_masks(folder: Path) -> list[FieldMasks]:
    """Return the fields that have masks in `folder`, sorted by name.

    Two layouts, which may be mixed: `<field>/<class>/<any name>.png`, one object a file, and
    `<field>.tif|png`, one label map a field.

    Raises
    ------
    InputError
        If the folder is missing or holds neither; if a field is there twice, or has no class
        folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of masks")
    found: dict[str, list[FieldMasks]] = defaultdict(list)
    faults = Faults()
    for path in label_files(folder):
        found[path.stem].append(FieldMasks(path.stem, label_map=path))
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        classes = {
            entry.name: mask_files(entry)
            for entry in natsorted(path.iterdir(), key=lambda entry: entry.name)
            if entry.is_dir() and not entry.name.startswith(".")
        }
        if ALL in classes:
            faults.append(f"{path / ALL}: the name {ALL!r} is taken by the union; rename the class")
        if not any(classes.values()):
            faults.append(f"{path}: no object, expected <class>/<name>.png in it")
        found[path.name].append(FieldMasks(path.name, classes=classes))
    faults += [
        f"{folder / name}: masks of one field in two places" for name in found if found[name][1:]
    ]
    faults.raise_all(folder)
    if not found:
        raise InputError(
            f"{folder}: no masks in it, expected <field>/<class>/<name>.png or <field>.tif"
        )
    return [found[name][0] for name in sorted(found)]


def copy_corresponding_files(images_dir: Path, output_dir: Path, field_name: str) -> Path:
    """Copy the image of a field, `<field_name>.<ext>`, to `output_dir` and return the copy.

    The name must be the whole field's: `..._s1` does not take the image of `..._s10`.

    Raises
    ------
    InputError
        If the field has no image there, or several.
    """
    source = the_image(find_images(images_dir).get(field_name, []), images_dir, field_name)
    target = create_directory(output_dir) / source.name
    copy_image(source, target)
    return target


def the_image(candidates: Sequence[Path], images_dir: Path, field_name: str) -> Path:
    """Return the one image of a field among `candidates`, or raise `InputError`."""
    if len(candidates) != 1:
        what = "no image of its own" if not candidates else "several images"
        names = ", ".join(path.name for path in candidates)
        raise InputError(
            f"{field_name}: {what} in {images_dir}{f' ({names})' if names else ''}, "
            f"expected one {field_name}.<png|jpg|tif>"
        )
    return candidates[0]


def process_masks(
    input_path: Path,
    output_dir: Path,
    corresponding_files_dir: Path,
    params: PrepareParams,
    *,
    class_name: str = ALL,
    report_path: Path | None = None,
    skip_unannotated: bool = False,
    force: bool = False,
) -> dict:
    """Write `<output_dir>/<class>/<split>/<field>_masks.<format>` beside a copy of each image.

    Where classes are known, `<field>_classes.csv` tells the class of each label; where cells of
    excluded classes are there, `<field>_excluded.<format>` is their label map.

    `all` is the union of all classes but those of `params.exclude`. Objects are numbered 1 to n in
    natural order of class and file; where they overlap, the later one wins. The output folder
    appears when every field is in it, so no fault leaves half a data set.

    Parameters
    ----------
    class_name : the class to train on, which must have cells in training and validation fields

    Returns
    -------
    dict
        The report, as written to `report_path` (default: `<output_dir>/prepare.json`): by class
        and split the fields and cells, and the cells that were dropped, with the reason.

    Raises
    ------
    InputError
        One error that tells all faults of the data by file name.
    """
    input_path, output_dir = Path(input_path), Path(output_dir)
    images_dir = Path(corresponding_files_dir)
    check_apart([output_dir], [input_path, images_dir])
    check_new(output_dir, force)
    if report_path is not None:
        check_new(Path(report_path), force)
    fields = find_masks(input_path)
    if not images_dir.is_dir():
        raise InputError(f"{images_dir}: no such folder of images")
    images = find_images(images_dir)
    splits = split_data([item.name for item in fields], params.val_pattern, params.test_pattern)
    faults = _alone(fields, images, images_dir, skip_unannotated)
    for split, names in splits.items():
        if not names:
            pattern = {"valid": params.val_pattern, "test": params.test_pattern}.get(split)
            why = f"no field has {pattern!r} in its name" if pattern else "no field is left for it"
            faults.append(
                f"split {split} stays empty: {why}; change -v and -t "
                "(in params.yaml prepare.val_pattern and prepare.test_pattern)"
            )
    split_by_field = {name: split for split, names in splits.items() for name in names}

    with whole(output_dir) as staging:
        staging.mkdir()

        def work(item: FieldMasks) -> FieldReport:
            candidates = images.get(item.name, [])
            image = candidates[0] if len(candidates) == 1 else None
            split = split_by_field[item.name]
            return _process_field(item, image, staging, split, params)

        reports = faults.map(work, fields, "prepare")
        faults.raise_all(input_path)
        report = _summary(reports, splits)
        for split in SPLITS:
            if not report["splits"][ALL][split]["cells"]:
                raise InputError(
                    f"split {split} stays empty: no cell of its fields is left once the classes "
                    f"{', '.join(params.exclude)} are excluded; change --exclude or the patterns"
                )
        for split in TRAINING_SPLITS:
            if not report["splits"].get(class_name, {}).get(split, {}).get("cells"):
                raise InputError(
                    f"{input_path}: no cell of the class {class_name!r} in the {split} split; "
                    f"the classes are {', '.join(report['splits'])} (class_name in params.yaml)"
                )
        if report_path is None:
            write_json(staging / "prepare.json", report)
    if report_path is not None:
        write_json(report_path, report)
    return report


def _alone(
    fields: Sequence[FieldMasks],
    images: dict[str, list[Path]],
    images_dir: Path,
    skip_unannotated: bool,
) -> Faults:
    """Return a fault for each field without its image, and each image without its masks."""
    faults = Faults()
    for item in fields:
        with faults.collect():
            the_image(images.get(item.name, []), images_dir, item.name)
    names = {item.name for item in fields}
    unannotated = [path for name in sorted(images.keys() - names) for path in images[name]]
    if skip_unannotated:
        log.info("%d images without masks are left out", len(unannotated))
        return faults
    faults += [
        f"{path}: no masks for this image; add them, or leave such images out "
        "with --skip_unannotated"
        for path in unannotated
    ]
    return faults


def _process_field(
    item: FieldMasks, image: Path | None, output: Path, split: str, params: PrepareParams
) -> FieldReport:
    report = FieldReport(item.name)
    faults = Faults()
    shape = None
    if image is not None:
        with faults.collect():
            shape = read_image(image).shape
    with faults.collect():
        found = (
            _from_label_map(item.label_map)
            if item.label_map
            else _from_objects(item, params.exclude, report)
        )
        first = item.label_map or next(path for paths in item.classes.values() for path in paths)
        if shape is not None:
            check_size(first, next(iter(found.maps.values())).shape, image, shape)
    faults.raise_all(item.name)
    for class_name, labels in found.maps.items():
        count = report.cells[class_name] = int(labels.max(initial=0))
        if not count:
            continue
        folder = create_directory(output / class_name / split)
        beside = {MASKS: labels}
        if found.excluded is not None and not _is_excluded(class_name, params.exclude):
            beside[EXCLUDED] = found.excluded
        for ending, content in beside.items():
            for suffix in params.formats:
                write_labels(folder / f"{item.name}{ending}.{suffix}", content)
        if found.classes is not None:
            classes = found.classes if class_name == ALL else [class_name] * count
            write_classes(folder / f"{item.name}{CLASSES}", classes)
        if image is not None:
            copy_image(image, folder / image.name)
    return report


def _is_excluded(class_name: str, exclude: Sequence[str]) -> bool:
    return class_name.lower() in {name.lower() for name in exclude}


def _from_label_map(path: Path) -> FieldLabels:
    labels = read_labels(path)
    check_separated(path, labels)
    labels = relabel(labels, path)
    if not labels.any():
        raise InputError(f"{path}: no object in it; remove the field, or annotate it")
    return FieldLabels({ALL: labels})


def _from_objects(item: FieldMasks, exclude: Sequence[str], report: FieldReport) -> FieldLabels:
    """Return a label map for each class of a field, and for `all`; note what is lost."""
    kept: list[CellObject] = []
    kept_files: list[Path] = []
    left_out: list[CellObject] = []
    maps: dict[str, np.ndarray] = {}
    frame: tuple[Path, tuple[int, int]] | None = None  # of the field's first mask
    faults = Faults()
    for class_name, paths in item.classes.items():
        objects, files = [], []
        for path in paths:
            with faults.collect():
                found = read_object(path)
                frame = frame or (path, found.frame)
                check_size(path, found.frame, *frame)
                if found.mask.size:
                    objects.append(found)
                    files.append(path)
                else:
                    report.empty.append(f"{item.name}/{class_name}/{path.name}")
        if not objects:
            continue
        maps[class_name] = relabel(label_map(objects, item.name))
        if _is_excluded(class_name, exclude):
            left_out += objects
        else:
            kept += objects
            kept_files += files
    faults.raise_all(item.name)
    if not maps:
        raise InputError(
            f"{item.name}: a field without objects, all of its mask files are empty; "
            "remove the field, or annotate it"
        )
    report.excluded = len(left_out)
    excluded = relabel(label_map(left_out, item.name)) if left_out else None
    if not kept:
        maps[ALL] = np.zeros(frame[1], np.uint16)
        return FieldLabels(maps, [], excluded)
    every = label_map(kept, item.name)
    visible = areas(every, len(kept))
    report.overlap_pixels = int(pixels_lost([found.area for found in kept], every).sum())
    names = [f"{item.name}/{path.parent.name}/{path.name}" for path in kept_files]
    report.hidden = [name for name, left in zip(names, visible, strict=True) if left == 0]
    maps[ALL] = relabel(every)
    classes = [path.parent.name for path, left in zip(kept_files, visible, strict=True) if left > 0]
    return FieldLabels(maps, classes, excluded)


def _summary(reports: Sequence[FieldReport], splits: dict[str, list[str]]) -> dict:
    split_of = {name: split for split, names in splits.items() for name in names}
    counts: dict[str, dict[str, Counter]] = defaultdict(
        lambda: {split: Counter(fields=0, cells=0) for split in SPLITS}
    )
    for report in reports:
        for class_name, cells in report.cells.items():
            if cells:
                counts[class_name][split_of[report.name]].update(fields=1, cells=cells)
    for what, told in (("empty mask file", "empty"), ("object hidden by later ones", "hidden")):
        for name in (name for report in reports for name in getattr(report, told)):
            log.warning("%s: %s", what, name)
    without = [report.name for report in reports if not report.cells.get(ALL)]
    for name in without:
        log.warning("%s: only excluded classes, not in %r", name, ALL)
    return {
        "splits": {
            name: {split: dict(counts[name][split]) for split in SPLITS} for name in sorted(counts)
        },
        "dropped": {
            "cells_excluded": sum(report.excluded for report in reports),
            "cells_hidden": sum(len(report.hidden) for report in reports),
            "empty_mask_files": sum(len(report.empty) for report in reports),
            "fields_without_cells": len(without),
            "overlap_pixels": sum(report.overlap_pixels for report in reports),
        },
        "names": {
            "hidden": sorted(name for report in reports for name in report.hidden),
            "empty": sorted(name for report in reports for name in report.empty),
            "without_cells": sorted(without),
        },
    }
