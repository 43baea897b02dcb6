"""Preparation: turn masks as they were annotated into label maps, by class and by split."""

import logging
import shutil
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from cellular.base.errors import Faults, InputError
from cellular.base.files import check_apart, check_new, together, write_json
from cellular.imaging.fields import (
    ALL,
    CLASSES,
    EXCLUDED,
    MASKS,
    SMALLEST_SIDE,
    SPLITS,
    FieldMasks,
    channels_of,
    check_channels,
    find_images,
    find_masks,
    groups_of,
    image_of,
    is_field,
    read_field,
    split_by_groups,
    split_data,
    unused,
    write_classes,
)
from cellular.imaging.images import read_labels, write_labels
from cellular.imaging.masks import check_cells, check_size, relabel
from cellular.preparing.objects import CellObject, combine_masks, load_mask_images
from cellular.preparing.params import PrepareParams

# The function names of the authors' own prepare script, in one place.
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
class FieldLabels:
    """The label maps of one field, and what is known of their cells."""

    source: Path  # the label map, or the first mask, that they come from
    maps: dict[str, np.ndarray]  # (H, W) uint16, of each class and of all
    classes: list[str] | None = None  # the class of each cell of all; None if not known
    excluded: np.ndarray | None = None  # (H, W) uint16, the cells of all excluded classes


@dataclass
class FieldReport:
    """Numbers of one field's cells, and the objects that were dropped."""

    name: str
    split: str
    cells: dict[str, int] = field(default_factory=dict)  # by class, and of all
    excluded: int = 0  # objects of excluded classes
    empty: list[str] = field(default_factory=list)  # mask files that show no object
    hidden: list[str] = field(default_factory=list)  # mask files of objects below later ones
    overlap_pixels: int = 0  # that objects lost to later ones
    blank_channels: list[int] = field(default_factory=list)  # of one value in the whole image


def create_directory(path: Path) -> Path:
    """Create a folder and its parents, if they are missing, and return it."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


def copy_corresponding_files(images_dir: Path, output_dir: Path, field_name: str) -> Path:
    """Copy the image of a field, `<field_name>.<ext>`, to `output_dir` and return the copy.

    Raises
    ------
    InputError
        If the field has no image in `images_dir`, or several.
    """
    source = image_of(images_dir, field_name)
    return Path(shutil.copyfile(source, create_directory(output_dir) / source.name))


def process_masks(
    input_path: Path,
    output_dir: Path,
    corresponding_files_dir: Path,
    params: PrepareParams,
    *,
    class_name: str = ALL,
    channels: Sequence[Sequence[int]] = (),
    report_path: Path | None = None,
    flows_dir: Path | None = None,
    device: torch.device | None = None,
    skip_unannotated: bool = False,
    force: bool = False,
) -> dict:
    """Write `<output_dir>/<class>/<split>/<field>_masks.<format>` beside a copy of each image.

    If classes are known, `<field>_classes.csv` beside them names the class of each label. If a
    field has cells of excluded classes, `<field>_excluded.<format>` is the label map of those.

    The class `all` is the union of all classes except those of `params.exclude`. Objects are
    numbered 1 to n in natural order of class and file; where they overlap, the later one wins. All
    outputs appear together, once they are complete, so that no fault leaves half a data set.

    Parameters
    ----------
    class_name : the class to train on and to score, which must have cells in each split
    channels : pairs of channels that models are given, in Cellpose's numbers; every image must have
        them
    flows_dir : folder for the training sets of the class, one for each split (default: none)
    device : on which the flows are computed (default: the CPU)
    skip_unannotated : leave out images without masks, which are a fault otherwise

    Returns
    -------
    dict
        The report, as written to `report_path` (default: `<output_dir>/prepare.json`): the number
        of fields and cells by class and split, and of the cells that were dropped, by reason; with
        `params.split_by` also the groups of each split.

    Raises
    ------
    InputError
        One error that lists every fault of the data by file name.
    """
    images_dir = corresponding_files_dir
    outputs = [Path(path) for path in (output_dir, report_path, flows_dir) if path is not None]
    check_apart(outputs, [input_path, images_dir])
    check_new(*outputs, force=force)
    fields, left = find_masks(input_path)
    if not images_dir.is_dir():
        raise InputError(f"{images_dir}: no such folder of images")
    faults = Faults()
    unannotated = find_images(images_dir)
    for item in fields:
        unannotated.pop(item.name, None)
    left += unused(images_dir, is_field, "<field>.<png|jpg|tif>")
    if params.skip_unused:
        for sentence in left:
            log.warning("%s", sentence)
    else:
        faults += [
            f"{sentence}; move it elsewhere, or leave out such files with --skip_unused (in "
            "params.yaml prepare.skip_unused)"
            for sentence in left
        ]
    if skip_unannotated:
        log.info("%d images without masks are left out", len(unannotated))
    else:
        faults += [
            f"{path}: no masks for this image; add them, or leave such images out with "
            "--skip_unannotated"
            for paths in unannotated.values()
            for path in paths
        ]
    splits = _splits([item.name for item in fields], params, faults)
    split_of = {name: split for split, names in splits.items() for name in names}

    with together(*outputs) as stagings:
        staged: dict[Path | None, Path] = dict(zip(outputs, stagings, strict=True))
        staging = staged[output_dir]
        staging.mkdir()

        def work(item: FieldMasks) -> FieldReport:
            split = split_of[item.name]
            return _process_field(item, images_dir, staging, split, params, channels)

        reports = faults.map(work, fields, "prepare")
        faults.raise_all(input_path)
        report = _summary(reports)
        if params.split_by:
            report["groups"] = {
                split: list(dict.fromkeys(groups_of(names, params.split_by).values()))
                for split, names in splits.items()
            }
        for split in SPLITS:
            if not report["splits"][ALL][split]["cells"]:
                raise InputError(
                    f"split {split} stays empty: all cells of its fields are of the excluded "
                    f"classes {', '.join(params.exclude)}; change --exclude or the split"
                )
        for split in SPLITS:
            if not report["splits"].get(class_name, {}).get(split, {}).get("cells"):
                raise InputError(
                    f"{input_path}: no cell of the class {class_name!r} in the {split} split; "
                    f"the classes are {', '.join(report['splits'])} (class_name in params.yaml)"
                )
        write_json(staged[report_path] if report_path else staging / "prepare.json", report)
        if flows_dir is not None:
            from cellular.preparing.flows import CPU, write_sets  # takes seconds to import

            write_sets(
                {split: staging / class_name / split for split in SPLITS},
                staged[flows_dir],
                cell_diameter=params.cell_diameter,
                flow_format=params.flow_format,
                device=device or CPU,
            )
    return report


def _splits(fields: list[str], params: PrepareParams, faults: Faults) -> dict[str, list[str]]:
    """Return the fields of each split; a split that stays empty is added to `faults`."""
    patterns = {"valid": params.val_pattern, "test": params.test_pattern}
    remedy = "change -v and -t (in params.yaml prepare.val_pattern and prepare.test_pattern)"
    if params.split_by:
        splits = split_by_groups(fields, params.split_by, params.test_groups, params.valid_groups)
        patterns = {}
        remedy = (
            "change --test_groups and --valid_groups (in params.yaml prepare.test_groups and "
            "prepare.valid_groups)"
        )
    else:
        splits = split_data(fields, params.val_pattern, params.test_pattern)
    for split, names in splits.items():
        if not names:
            pattern = patterns.get(split)
            why = f"no field has {pattern!r} in its name" if pattern else "no field is left for it"
            faults.append(f"split {split} stays empty: {why}; {remedy}")
    return splits


def _process_field(
    item: FieldMasks,
    images_dir: Path,
    output: Path,
    split: str,
    params: PrepareParams,
    channels: Sequence[Sequence[int]],
) -> FieldReport:
    report = FieldReport(item.name, split)
    faults = Faults()
    with faults.collect():
        image = image_of(images_dir, item.name)
        pixels = read_field(image)
        shape = pixels.shape
        if min(shape[:2]) < SMALLEST_SIDE:
            raise InputError(
                f"{image}: {shape[1]} x {shape[0]} pixels, expected at least {SMALLEST_SIDE} a "
                "side, which is two of the smallest cells; leave the field out"
            )
        for pair in channels:
            check_channels(image, pixels, pair)
        report.blank_channels = _blank_channels(pixels, channels)
    with faults.collect():
        found = (
            _from_label_map(item.label_map)
            if item.label_map
            else _from_objects(item, params.exclude, report)
        )
        if not faults:
            check_size(found.source, found.maps[ALL].shape, image, shape)
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
        copy_corresponding_files(images_dir, folder, item.name)
    return report


def _blank_channels(image: np.ndarray, channels: Sequence[Sequence[int]]) -> list[int]:
    """Return which channels that models are given have one value in an image, (H, W[, C])."""
    wanted = sorted({number for pair in channels for number in channels_of(image, pair)})
    parts = {number: image[..., number - 1] if number else image for number in wanted}
    return [number for number, part in parts.items() if (part == part[0, 0]).all()]


def _is_excluded(class_name: str, exclude: Sequence[str]) -> bool:
    return class_name.lower() in {name.lower() for name in exclude}


def _from_label_map(path: Path) -> FieldLabels:
    labels = read_labels(path)
    check_cells(path, labels)
    return FieldLabels(path, {ALL: relabel(labels, path)})


def _from_objects(field: FieldMasks, exclude: Sequence[str], report: FieldReport) -> FieldLabels:
    """Return the label maps of a field's objects; the objects that they lack go to `report`."""
    faults = Faults()
    loaded: list[CellObject] = []
    for folder in field.classes.values():
        with faults.collect():
            objects = load_mask_images(folder)
            if loaded and objects:
                first, other = loaded[0], objects[0]
                check_size(other.path, other.frame, first.path, first.frame)
            loaded += objects
    faults.raise_all(field.name)
    report.empty = [item.name for item in loaded if not item.mask.size]
    objects = [item for item in loaded if item.mask.size]
    if not objects:
        raise InputError(
            f"{field.name}: a field without objects, because all of its mask files are empty; "
            "remove the field, or annotate it"
        )
    by_class: dict[str, list[CellObject]] = defaultdict(list)
    for item in objects:
        by_class[item.class_name].append(item)
    maps = {name: relabel(combine_masks(of, field.name)) for name, of in by_class.items()}
    kept = [item for item in objects if not _is_excluded(item.class_name, exclude)]
    left_out = [item for item in objects if _is_excluded(item.class_name, exclude)]
    report.excluded = len(left_out)
    excluded = relabel(combine_masks(left_out, field.name)) if left_out else None
    source, frame = objects[0].path, objects[0].frame
    if not kept:
        return FieldLabels(source, maps | {ALL: np.zeros(frame, np.uint16)}, [], excluded)
    labels = combine_masks(kept, field.name)
    visible = np.bincount(labels.ravel(), minlength=len(kept) + 1)[1:]  # pixels of each object
    report.overlap_pixels = sum(item.area for item in kept) - int(visible.sum())
    report.hidden = [item.name for item, left in zip(kept, visible, strict=True) if not left]
    classes = [item.class_name for item, left in zip(kept, visible, strict=True) if left]
    return FieldLabels(source, maps | {ALL: relabel(labels)}, classes, excluded)


def _summary(reports: Sequence[FieldReport]) -> dict:
    counts: dict[str, dict[str, Counter]] = defaultdict(
        lambda: {split: Counter(fields=0, cells=0) for split in SPLITS}
    )
    _ = counts[ALL]  # it is listed even if all cells are of excluded classes
    for report in reports:
        for class_name, cells in report.cells.items():
            if cells:
                counts[class_name][report.split].update(fields=1, cells=cells)
    empty = sorted(name for report in reports for name in report.empty)
    hidden = sorted(name for report in reports for name in report.hidden)
    without = sorted(report.name for report in reports if not report.cells.get(ALL))
    for name in empty:
        log.warning("empty mask file: %s", name)
    for name in hidden:
        log.warning("object hidden by later ones: %s", name)
    for name in without:
        log.warning("%s: only excluded classes, not in %r", name, ALL)
    blank = Counter(number for report in reports for number in report.blank_channels)
    for number, fields in sorted(blank.items()):
        log.warning(
            "channel %s has one value only in %d of %d fields, so the network sees nothing in it; "
            "choose other channels",
            *(number or "0 (grey)", fields, len(reports)),
        )
    return {
        "splits": {
            name: {split: dict(counts[name][split]) for split in SPLITS} for name in sorted(counts)
        },
        "dropped": {
            "cells_excluded": sum(report.excluded for report in reports),
            "cells_hidden": len(hidden),
            "empty_mask_files": len(empty),
            "fields_without_cells": len(without),
            "overlap_pixels": sum(report.overlap_pixels for report in reports),
        },
        "names": {
            "hidden": hidden,
            "empty": empty,
            "without_cells": without,
            "blank_channels": [
                f"{report.name}: {number}" for report in reports for number in report.blank_channels
            ],
        },
    }
