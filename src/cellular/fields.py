"""Fields of view: their names, their images and masks, and the split that each belongs to."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellular.errors import InputError, raise_faults
from cellular.images import image_files, label_files, read_image, read_labels
from cellular.masks import check_size, relabel

SPLITS = ("train", "valid", "test")
MASKS = "_masks"  # Cellpose's own ending of a label map: <field>_masks.png beside <field>.<ext>


@dataclass(frozen=True)
class Pair:
    """A field's image and its label map in a prepared folder."""

    field: str
    image: Path
    labels: Path


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
    faults = []
    for field in sorted(fields):
        try:
            splits[split_of(field, val_pattern, test_pattern)].append(field)
        except InputError as error:
            faults.append(str(error))
    raise_faults("the split", faults)
    return splits


def find_images(folder: Path) -> dict[str, list[Path]]:
    """Return the image files of a folder by field.

    A field's image bears the field's name, whole: `..._s10.jpg` is no image of `..._s1`.
    """
    images: dict[str, list[Path]] = {}
    for path in image_files(folder):
        if not path.stem.endswith(MASKS):
            images.setdefault(path.stem, []).append(path)
    return images


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
    images = find_images(folder)
    labels: dict[str, Path] = {}
    for path in label_files(folder):
        # Of a field that is there as PNG and as TIFF, the labels are the same: take the first.
        if path.stem.endswith(MASKS):
            labels.setdefault(path.stem.removesuffix(MASKS), path)
    faults = [
        f"{path}: no image beside it" for field, path in labels.items() if field not in images
    ]
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
    raise_faults(folder, faults)
    if not labels:
        raise InputError(
            f"{folder}: no image with masks in it, expected <field>.<ext> beside "
            f"<field>{MASKS}.png or .tif; prepare it with src/prepare_data.py"
        )
    return [Pair(field, images[field][0], labels[field]) for field in sorted(labels)]


def read_pair(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Return a field's image and its label map, (H, W) uint16, numbered 1 to n."""
    image, labels = read_image(pair.image), read_labels(pair.labels)
    check_size(pair.labels, labels.shape, pair.image, image.shape)
    return image, relabel(labels, pair.labels)


def check_pairs(folder: Path) -> list[Pair]:
    """Return the fields of a prepared folder; one `InputError` tells all that cannot be read."""
    pairs = load_pairs(folder)
    faults = []
    for pair in pairs:
        try:
            read_pair(pair)
        except InputError as error:
            faults.append(str(error))
    raise_faults(folder, faults)
    return pairs
