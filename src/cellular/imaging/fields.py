"""Fields of view: their names, their images and masks, and the split that each belongs to."""

import csv
import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellular.base.errors import Faults, InputError
from cellular.imaging.images import image_files, label_files, read_image, read_labels
from cellular.imaging.masks import check_size, relabel

TRAINING_SPLITS = ("train", "valid")  # the fields that training needs
SPLITS = (*TRAINING_SPLITS, "test")
ALL = "all"  # stands for a class: the cells of every class but the excluded
# What lies beside a prepared field's image, <field>.<ext>:
MASKS = "_masks"  # its label map (the ending is Cellpose's own)
EXCLUDED = "_excluded"  # the label map of the cells of excluded classes, if it has such
CLASSES = "_classes.csv"  # the class of each label, if classes are known
# Timepoint_<number>_<date>-<plate>_<well>_s<site>, as CELLULAR names its fields
NAME = re.compile(r"Timepoint_(?P<timepoint>\d+)_(?P<plate>.+)_(?P<well>[A-P]\d{2})_s\d+")


@dataclass(frozen=True)
class Pair:
    """A field's image and its label map in a prepared folder."""

    field: str
    image: Path
    labels: Path
    excluded: Path | None = None  # label map of the cells of excluded classes
    classes: Path | None = None  # table of labels and their classes


def origin(field: str) -> dict[str, str]:
    """Return time point and well by the name of a field; nothing if it is not named as CELLULAR's.

    >>> origin("Timepoint_001_220518-ST_C03_s3")
    {'timepoint': '001', 'well': 'C03'}
    """
    named = NAME.fullmatch(field)
    return {key: named[key] for key in ("timepoint", "well")} if named else {}


def split_of(field: str, val_pattern: str, test_pattern: str) -> str:
    """Return the split of a field: test or valid by the text in its name, otherwise train.

    Raises `InputError` if its name holds both patterns.
    """
    valid, test = val_pattern in field, test_pattern in field
    if valid and test:
        raise InputError(
            f"{field}: matches the validation pattern {val_pattern!r} and the test pattern "
            f"{test_pattern!r}; a field belongs to one split, so make the patterns narrower"
        )
    return "test" if test else "valid" if valid else "train"


def split_data(
    fields: list[str], val_pattern: str = "ST_I06", test_pattern: str = "ST_C03"
) -> dict[str, list[str]]:
    """Return the sorted fields of each split, {"train": ..., "valid": ..., "test": ...}.

    Raises one `InputError` that names every field that matches both patterns.
    """
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    faults = Faults()
    for field in sorted(fields):
        with faults.collect():
            splits[split_of(field, val_pattern, test_pattern)].append(field)
    faults.raise_all("the split")
    return splits


def find_images(folder: Path, pattern: str = "*") -> dict[str, list[Path]]:
    """Return the image files of a folder, by field; label maps beside them are left out."""
    images: dict[str, list[Path]] = {}
    for path in image_files(folder, pattern):
        if not path.stem.endswith(MASKS):
            images.setdefault(path.stem, []).append(path)
    return images


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


def load_pairs(folder: Path) -> list[Pair]:
    """Return the fields of a prepared folder, `<field>_masks.<png|tif>` beside `<field>.<ext>`.

    Raises
    ------
    InputError
        If the folder is missing or holds no pair, or an image or a label map is alone.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; prepare it with src/prepare_data.py")
    images = {
        field: paths for field, paths in find_images(folder).items() if not field.endswith(EXCLUDED)
    }
    labels: dict[str, Path] = {}
    excluded: dict[str, Path] = {}
    for path in label_files(folder):
        # Of a field that is there as PNG and as TIFF, the labels are the same: take the first.
        for ending, found in ((MASKS, labels), (EXCLUDED, excluded)):
            if path.stem.endswith(ending):
                found.setdefault(path.stem.removesuffix(ending), path)
    classes = {
        path.name.removesuffix(CLASSES): path for path in sorted(folder.glob(f"[!.]*{CLASSES}"))
    }
    faults = Faults(
        f"{path}: no image beside it" for field, path in labels.items() if field not in images
    )
    faults += [
        f"{images[field][0]}: no label map {field}{MASKS}.png or .tif beside it"
        for field in images
        if field not in labels
    ]
    faults += [
        f"{' and '.join(map(str, paths))}: two images of one field; remove one"
        for paths in images.values()
        if len(paths) > 1
    ]
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


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Return a field's image and its label map, (H, W) uint16, numbered 1 to n."""
    image, labels = read_image(pair.image), read_labels(pair.labels)
    check_size(pair.labels, labels.shape, pair.image, image.shape)
    return image, relabel(labels, pair.labels)


def read_excluded(pair: Pair, labels: np.ndarray) -> np.ndarray | None:
    """Return where a field has cells of excluded classes: (H, W) bool, or None if it has none.

    `labels` is the field's label map; its cells are not excluded, whatever the file says.
    """
    if pair.excluded is None:
        return None
    excluded = read_labels(pair.excluded)
    check_size(pair.excluded, excluded.shape, pair.labels, labels.shape)
    return (excluded > 0) & (labels == 0)


def read_classes(pair: Pair) -> list[str] | None:
    """Return the class of each cell of a field, in the order of its labels, or None if unknown.

    Raises
    ------
    InputError
        If the table does not name exactly the labels of the label map.
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
            "each label"
        ) from None
    labels = np.unique(read_labels(pair.labels))
    labels = labels[labels > 0].tolist()
    if sorted(named) != labels or len(rows) != len(labels):
        raise InputError(
            f"{pair.classes}: {len(rows)} rows for the {len(labels)} labels of {pair.labels}; "
            "expected one row for each; prepare the data anew"
        )
    return [named[label] for label in labels]


def write_classes(path: Path, classes: Sequence[str]) -> None:
    """Write the classes of the cells 1 to n as a table that `read_classes` reads."""
    with path.open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["label", "class"])
        writer.writerows(enumerate(classes, start=1))


def check_pairs(folder: Path) -> list[Pair]:
    """Return the fields of a prepared folder; one `InputError` tells all that cannot be read."""
    pairs = load_pairs(folder)
    faults = Faults()
    for pair in pairs:
        with faults.collect():
            _, labels = read_pair(pair)
            read_excluded(pair, labels)
            read_classes(pair)
    faults.raise_all(folder)
    return pairs
