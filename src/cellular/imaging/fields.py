"""Fields of view: their names, images and label maps, and the split that each belongs to."""

import csv
import glob
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from natsort import natsorted

from cellular.base.errors import Faults, InputError
from cellular.imaging.images import (
    image_files,
    is_image,
    is_mask,
    label_files,
    others,
    read_image,
    read_labels,
)
from cellular.imaging.masks import check_size, relabel

SPLITS = ("train", "valid", "test")
ALL = "all"  # used like a class: the cells of all classes except the excluded ones
# Endings of the files beside a prepared field's image, <field>.<ext>:
MASKS = "_masks"  # its label map, as Cellpose names it
EXCLUDED = "_excluded"  # the label map of the cells of excluded classes, if it has any
CLASSES = "_classes.csv"  # the class of each label, if classes are known
SMALLEST_SIDE = 10  # pixels of a field; two of the smallest cells that Cellpose trains on
MASK_FILE = ".png or .tif (not .jpg, which changes pixels around edges)"
LONGEST_NAME = 230  # bytes, of a field or a class; disks allow 255, with endings such as the above
# Names of CELLULAR's fields: Timepoint_<number>_<date>-<plate>_<well>_s<site>
NAME = re.compile(r"Timepoint_(?P<timepoint>\d+)_(?P<plate>.+)_(?P<well>[A-P]\d{2})_(?P<site>s\d+)")
Group = Literal["plate", "well", "site", "timepoint"]  # by which fields can be split


@dataclass(frozen=True)
class FieldMasks:
    """Where the masks of one field are: a label map, or class folders with one object per file."""

    name: str
    label_map: Path | None
    classes: dict[str, Path]  # the folder of each class; {} beside a label map


@dataclass(frozen=True)
class Pair:
    """A field's image and its label map in a prepared folder."""

    field: str
    image: Path
    labels: Path
    excluded: Path | None = None  # label map of the cells of excluded classes
    classes: Path | None = None  # table of labels and their classes


def origin(field: str) -> dict[str, str]:
    """Return what a field's name tells: time point, plate, well, site; {} if it is not CELLULAR's.

    Wells of two plates differ, and so do sites of two wells.

    >>> known = origin("Timepoint_001_220518-ST_C03_s3")
    >>> known["timepoint"], known["plate"], known["well"], known["site"]
    ('001', '220518-ST', '220518-ST C03', '220518-ST C03 s3')
    """
    named = NAME.fullmatch(field)
    if not named:
        return {}
    plate = named["plate"]
    well = f"{plate} {named['well']}"
    site = f"{well} {named['site']}"
    return {"timepoint": named["timepoint"], "plate": plate, "well": well, "site": site}


def groups_of(fields: Iterable[str], by: str) -> dict[str, str]:
    """Return the group of each field: its plate, well, site or time point.

    Groups come in natural order, and the fields of a group are sorted.

    Raises
    ------
    InputError
        One error that names every field whose name does not tell its group.

    >>> groups_of(["Timepoint_001_p_C10_s1", "Timepoint_001_p_C03_s1"], "well")
    {'Timepoint_001_p_C03_s1': 'p C03', 'Timepoint_001_p_C10_s1': 'p C10'}
    """
    groups = {field: origin(field).get(by) for field in sorted(fields)}
    Faults(
        f"{field}: the name does not tell the {by}, expected Timepoint_<number>_<plate>_<well>_"
        "s<site>, such as Timepoint_001_220518-ST_C03_s3; rename its files, or split by the text "
        "in names, with --split_by none (in params.yaml prepare.split_by: null)"
        for field, group in groups.items()
        if group is None
    ).raise_all(f"the split by {by}")
    return {field: str(groups[field]) for field in natsorted(groups, key=lambda name: groups[name])}


def split_data(
    fields: list[str], val_pattern: str = "ST_I06", test_pattern: str = "ST_C03"
) -> dict[str, list[str]]:
    """Return the sorted fields of each split, {"train": ..., "valid": ..., "test": ...}.

    A field with one of the patterns in its name is a validation or a test field, any other is a
    training field.

    Raises
    ------
    InputError
        One error that names every field with both patterns in its name.
    """
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    faults = Faults()
    for field in sorted(fields):
        valid, test = val_pattern in field, test_pattern in field
        splits["test" if test else "valid" if valid else "train"].append(field)
        if valid and test:
            faults.append(
                f"{field}: matches the validation pattern {val_pattern!r} and the test pattern "
                f"{test_pattern!r}; a field belongs to one split, so make the patterns narrower"
            )
    faults.raise_all("the split")
    return splits


def split_by_groups(
    fields: Iterable[str], by: str, test_groups: Sequence[str], valid_groups: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return the sorted fields of each split, as `split_data` does, with whole groups in a split.

    Parameters
    ----------
    by : what a group is, see `groups_of`
    test_groups, valid_groups : each a group in full (220518-ST C03), its last words (C03), or a
        number (5 for 005). Without a validation group it is the one after the last test group in
        natural order that is no test group; after the last group comes the first. The fields of all
        other groups are training fields.

    Raises
    ------
    InputError
        If the names of fields do not tell their groups, if there is no test group, or if a group is
        not there, stands for several, or is in both lists.
    """
    group_of = groups_of(fields, by)
    groups = list(dict.fromkeys(group_of.values()))
    there = f"the {by}s are {', '.join(groups)}"
    if not test_groups:
        raise InputError(f"no test group; {there}; name at least one in {_named('test')}")
    faults = Faults()
    chosen: dict[str, list[str]] = {"test": [], "valid": []}
    for split, names in (("test", test_groups), ("valid", valid_groups)):
        for name in names:
            found = _matching(name, groups)
            if len(found) == 1:
                chosen[split] += found
            else:
                means = f"stands for {' and '.join(found)}" if found else f"no such {by}"
                remedy = f"name one in full in {_named(split)}"
                faults.append(f"{split} group {name!r}: {means}; {there}; {remedy}")
    faults += [
        f"{by} {group}: both a test and a validation group; take it out of {_named('test')} or of "
        f"{_named('valid')}"
        for group in groups
        if group in chosen["test"] and group in chosen["valid"]
    ]
    faults.raise_all(f"the split by {by}")
    if not valid_groups:
        last = max(map(groups.index, chosen["test"]))
        after = groups[last + 1 :] + groups[:last]
        chosen["valid"] = [group for group in after if group not in chosen["test"]][:1]
    split_of = {group: split for split, names in chosen.items() for group in names}
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for field in sorted(group_of):
        splits[split_of.get(group_of[field], "train")].append(field)
    return splits


def _named(split: str) -> str:
    return f"--{split}_groups (in params.yaml prepare.{split}_groups)"


def _matching(name: str, groups: Sequence[str]) -> list[str]:
    """Return the groups that a name stands for: the group of that name, or all that it may mean."""
    if name in groups:
        return [name]
    digits = name.lstrip("0") if name.isdecimal() else None  # YAML reads 005 as the number 5
    return [
        group
        for group in groups
        if group.endswith(f" {name}") or (group.isdecimal() and group.lstrip("0") == digits)
    ]


def is_field(path: Path) -> bool:
    """Tell whether `path` is the image of a field, and not a label map beside one."""
    return is_image(path) and not path.stem.endswith((MASKS, EXCLUDED))


def find_images(folder: Path, pattern: str = "*") -> dict[str, list[Path]]:
    """Return the image files of a folder, by field; label maps beside them are left out."""
    images: dict[str, list[Path]] = {}
    for path in filter(is_field, image_files(folder, pattern)):
        images.setdefault(path.stem, []).append(path)
    return images


def find_masks(folder: Path) -> tuple[list[FieldMasks], list[str]]:
    """Return the fields that have masks in `folder`, sorted by name, and what else lies in it.

    There are two layouts, which may be mixed: `<field>/<class>/<any name>.png` with one object per
    file, and `<field>.tif` or `.png` with one label map per field.

    Returns
    -------
    list of FieldMasks
    list of str
        A sentence on each file or folder that has no place in either layout.

    Raises
    ------
    InputError
        If the folder is missing or has neither layout, or if a field is there twice, has no mask
        file, or has a name that cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of masks")
    found: dict[str, list[FieldMasks]] = defaultdict(list)
    faults = Faults()
    for path in label_files(folder):
        found[path.stem].append(FieldMasks(path.stem, path, {}))
    left = unused(
        folder, lambda path: _shown(path) or is_mask(path), f"<field>/ or <field>{MASK_FILE}"
    )
    for path in filter(_shown, sorted(folder.iterdir())):
        inside = natsorted(filter(_shown, path.iterdir()), key=lambda entry: entry.name)
        classes = {entry.name: entry for entry in inside}
        left += unused(path, _shown, "<class>/<name>.png")
        for entry in inside:
            left += unused(entry, is_mask, f"<name>{MASK_FILE}")
        if ALL in classes:
            faults.append(
                f"{path / ALL}: the name {ALL!r} is taken, it stands for the union of the classes; "
                "rename the class"
            )
        if not any(map(label_files, inside)):
            faults.append(f"{path}: no object in it, expected <class>/<name>.png")
        found[path.name].append(FieldMasks(path.name, None, classes))
    faults += [
        f"{folder / name}: masks of one field in two places; remove one"
        for name in found
        if found[name][1:]
    ]
    faults += _name_faults("field", found)
    faults += _name_faults("class", (name for of in found.values() for name in of[0].classes))
    faults += left if faults else []
    faults.raise_all(folder)
    if not found:
        raise InputError(
            f"{folder}: no masks in it, expected <field>/<class>/<name>.png or <field>.tif"
        )
    return [found[name][0] for name in sorted(found)], left


def unused(folder: Path, used: Callable[[Path], bool], expected: str) -> list[str]:
    """Return a sentence on each thing right inside `folder` that is not `used`."""
    return [f"{path}: not used, expected {expected}" for path in others(folder, used)]


def _shown(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _name_faults(what: str, names: Iterable[str]) -> list[str]:
    """Return a sentence on each name of a field or a class that cannot be used."""
    faults = []
    alike: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        alike[name.casefold()].append(name)
        length = len(os.fsencode(name))
        if length > LONGEST_NAME:
            faults.append(
                f"{what} {name[:30]!r}...: a name of {length} bytes, at most {LONGEST_NAME} leave "
                "room for endings; shorten it"
            )
        if re.search("[\ud800-\udfff]", name):  # Python's stand-ins for bytes that are no UTF-8
            faults.append(f"{what} {name!r}: a name that is not UTF-8 text; rename it")
        if what == "field" and name.endswith((MASKS, EXCLUDED)):
            faults.append(
                f"field {name!r}: files ending in {MASKS} and {EXCLUDED} are label maps beside "
                "images; rename the field"
            )
    faults += [
        f"{what} {' and '.join(map(repr, several))}: names that differ in upper and lower case "
        "only are one name on some systems; rename one"
        for several in alike.values()
        if len(several) > 1
    ]
    return faults


def image_of(folder: Path, field: str) -> Path:
    """Return the image of a field in a folder, `<field>.<ext>`.

    Its name must be the whole name of the field: `..._s10.jpg` is not the image of `..._s1`.

    Raises
    ------
    InputError
        If the field has no image there, or several.
    """
    found = find_images(folder, f"{glob.escape(field)}.*").get(field, [])
    if len(found) != 1:
        what = f"several images ({', '.join(path.name for path in found)})" if found else "no image"
        raise InputError(f"{field}: {what} in {folder}, expected one {field}.<png|jpg|tif>")
    return found[0]


def unpaired(images: dict[str, list[Path]], found: dict[str, Path], missing: str) -> list[str]:
    """Return what is wrong with the images of a folder and the annotations beside them.

    `missing` is told of an image that has none, with the name of its field in place of {}.
    """
    return [
        *(f"{found[field]}: no image beside it" for field in found.keys() - images),
        *(f"{images[field][0]}: {missing.format(field)}" for field in images.keys() - found),
        *(
            f"{' and '.join(map(str, paths))}: two images of one field; remove one"
            for paths in images.values()
            if len(paths) > 1
        ),
    ]


def load_pairs(folder: Path) -> list[Pair]:
    """Return the fields of a prepared folder, `<field>_masks.<png|tif>` beside `<field>.<ext>`.

    Raises
    ------
    InputError
        If the folder is missing or has no fields, or if an image or a label map is alone.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; prepare it with src/prepare_data.py")
    images = find_images(folder)
    labels: dict[str, Path] = {}
    excluded: dict[str, Path] = {}
    faults = Faults()
    for path in reversed(label_files(folder)):  # of a PNG and a TIFF of one map, the PNG remains
        for ending, found in ((MASKS, labels), (EXCLUDED, excluded)):
            if path.stem.endswith(ending):
                other = found.setdefault(path.stem.removesuffix(ending), path)
                with faults.collect():
                    if other != path and not np.array_equal(read_labels(other), read_labels(path)):
                        faults.append(
                            f"{path} and {other.name}: two label maps that differ; remove one"
                        )
                found[path.stem.removesuffix(ending)] = path
    classes = {path.name.removesuffix(CLASSES): path for path in folder.glob(f"[!.]*{CLASSES}")}
    faults += unpaired(images, labels, f"no label map {{}}{MASKS}.png or .tif beside it")
    faults.sort()
    faults.raise_all(folder)
    if not labels:
        raise InputError(
            f"{folder}: no image with masks in it, expected <field>.<ext> beside "
            f"<field>{MASKS}.png or .tif; prepare it with src/prepare_data.py"
        )
    return [
        Pair(field, images[field][0], labels[field], excluded.get(field), classes.get(field))
        for field in sorted(labels)
    ]


def read_field(path: Path) -> np.ndarray:
    """Return the image of a field, (H, W) or (H, W, C) with 2 or 3 channels.

    A fourth channel with one value everywhere, as an image without transparent parts has, is left
    out.

    Raises
    ------
    InputError
        If it cannot be read, or has four channels that differ.
    """
    image = read_image(path)
    if image.ndim == 3 and image.shape[2] == 4:
        if (image[..., 3] != image[0, 0, 3]).any():
            raise InputError(
                f"{path}: four channels, such as of a transparent or a CMYK image, expected grey "
                "or 2 or 3 channels; save it as grey or RGB"
            )
        image = image[..., :3]
    return image


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Return a field's image, (H, W) or (H, W, C), and label map, (H, W) uint16, numbered 1 to n.

    Raises
    ------
    InputError
        If one cannot be read, or they differ in size.
    """
    image, labels = read_field(pair.image), read_labels(pair.labels)
    check_size(pair.labels, labels.shape, pair.image, image.shape)
    return image, relabel(labels, pair.labels)


def read_excluded(pair: Pair, labels: np.ndarray) -> np.ndarray | None:
    """Return the pixels of a field's cells of excluded classes, (H, W) bool; None if it has none.

    `labels` is the field's label map. Its own cells are never excluded, even where the two overlap.
    """
    if pair.excluded is None:
        return None
    excluded = read_labels(pair.excluded)
    check_size(pair.excluded, excluded.shape, pair.labels, labels.shape)
    return (excluded > 0) & (labels == 0)


def read_classes(pair: Pair) -> list[str] | None:
    """Return the classes of a field's cells, in the order of their labels, or None if not known.

    Raises
    ------
    InputError
        If the table cannot be read, or does not list each label of the label map once.
    """
    if pair.classes is None:
        return None
    try:
        with pair.classes.open(encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table))
        named = {int(row["label"]): row["class"] for row in rows}
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{pair.classes}: expected UTF-8 with the columns label and class, and a number in "
            "each label; prepare the data again"
        ) from None
    labels = np.unique(read_labels(pair.labels))
    labels = labels[labels > 0].tolist()
    if sorted(named) != labels or len(rows) != len(labels):
        raise InputError(
            f"{pair.classes}: {len(rows)} rows for the {len(labels)} labels of {pair.labels}; "
            "expected one row for each; prepare the data again"
        )
    return [named[label] for label in labels]


def write_classes(path: Path, classes: Sequence[str]) -> None:
    """Write the classes of the cells 1 to n to a table that `read_classes` can read."""
    with path.open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["label", "class"])
        writer.writerows(enumerate(classes, start=1))


def channels_of(image: np.ndarray, channels: Sequence[int]) -> list[int]:
    """Return which channels of an image, (H, W[, C]), a network sees, 0 for grey.

    `channels` is Cellpose's pair: to segment (0: grey) and nuclear (0: none). Grey has no second
    one, and an image of one channel is always seen in grey.
    """
    first, second = channels
    if image.ndim == 2 or not first:
        return [0]
    return [first, second] if second else [first]


def check_channels(path: Path, image: np.ndarray, channels: Sequence[int]) -> None:
    """Raise `InputError` if an image, (H, W[, C]), lacks a channel that a network is given."""
    count = image.shape[2] if image.ndim == 3 else 1
    lacking = [number for number in channels_of(image, channels) if number > count]
    if lacking:
        raise InputError(
            f"{path}: an image of {count} channels, without the channel {lacking[0]} that a model "
            f"is given; choose among 0 (grey) to {count} (in params.yaml train.channels and "
            "channels.pretrained)"
        )


def check_pairs(folder: Path, channels: Sequence[int] = (0, 0)) -> list[Pair]:
    """Return the fields of a prepared folder, after reading all of their files once.

    `channels` are those that a network is to be given.

    Raises
    ------
    InputError
        One error that lists everything that is missing or cannot be read.
    """
    pairs = load_pairs(folder)
    faults = Faults()
    for pair in pairs:
        with faults.collect():
            image, labels = read_pair(pair)
            check_channels(pair.image, image, channels)
            read_excluded(pair, labels)
            read_classes(pair)
    faults.raise_all(folder)
    return pairs
