"""The training set: fields and their flows, in files that are mapped from disk.

`cellular.preparing.flows` writes such a folder once. A field is two arrays, of which only the
pixels of a crop are read, so that no field has to fit in memory:

    <field>_image.npy   (C, H, W), the channels in the image's dtype, or float32 if changed
    <field>_flows.npy   (3, H, W) int8: cell (1) or background (0), flow in y and in x times 127

The index, `fields.json`, holds the rest: diameters, numbers of cells, percentiles, hashes.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellular.base.errors import Faults, InputError
from cellular.base.params import NETWORK_DIAMETER
from cellular.imaging.fields import Pair
from cellular.imaging.tones import limits, normalised

INDEX = "fields.json"
FORMAT = 1
FLOW_UNIT = 127  # int8 of a flow of length 1; rounding errors are at most 0.004
REMEDY = "write the flows again with src/prepare_data.py --flows_dir"
GREY = 0  # Cellpose's number for the mean of all channels; 1, 2, 3 are red, green, blue


@dataclass(frozen=True)
class TrainingField:
    """A field to train on, with the channels that the network sees."""

    name: str
    image: np.ndarray  # (C, H, W), in memory or mapped
    flows: np.ndarray  # (3, H, W) float32, or int8 in units of 1/127: cell, flow in y, flow in x
    cells: int
    diameter: float  # median diameter of the cells, in pixels of these arrays
    scale: float  # size of these arrays relative to the user's image
    seen_diameter: float  # diameter in pixels at which the network is to see cells
    channels: tuple[int, ...]  # that the network sees, in Cellpose's numbers
    limits: tuple[tuple[float, float], ...]  # their 1st and 99th percentiles, over the whole field

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.image.shape[-2:]
        return height, width

    def image_at(self, window: tuple[slice, slice]) -> np.ndarray:
        """Return the network's channels in a window, normalised: (n, h, w) float32.

        The values are those that Cellpose's `convert_image` and `normalize_img` give of the whole
        field.
        """
        raw = np.asarray(self.image[(slice(None), *window)]).astype(np.float32)
        shown = np.zeros((len(self.channels), *raw.shape[1:]), np.float32)
        for number, (channel, ends) in enumerate(zip(self.channels, self.limits, strict=True)):
            shown[number] = normalised(pick(raw, channel), *ends)
        return shown

    def flows_at(self, window: tuple[slice, slice]) -> np.ndarray:
        """Return the cell mask and the two flows in a window: (3, h, w) float32."""
        flows = np.asarray(self.flows[(slice(None), *window)])
        if flows.dtype != np.int8:
            return flows.astype(np.float32)
        decoded = flows.astype(np.float32)
        decoded[1:] /= FLOW_UNIT
        return decoded


def pick(image: np.ndarray, channel: int) -> np.ndarray:
    """Return a channel of an image, (C, H, W), or for `GREY` the mean of all: (H, W)."""
    if channel != GREY and len(image) > 1:
        return image[channel - 1]
    return image.mean(axis=0)


def channels_seen(channels: Sequence[int], count: int) -> tuple[int | None, ...]:
    """Return which of an image's `count` channels each input of the network sees; None: none.

    `channels` has Cellpose's meaning: the number of the channel to segment (0: grey), and that of
    the nuclear channel (0: none). With grey, and with images of one channel, there is no second.
    """
    first, second = channels
    if count == 1 or first == GREY:
        return GREY, None
    return first, second or None


def percentiles(image: np.ndarray) -> dict[int, tuple[float, float]]:
    """Return the 1st and 99th percentile of each channel of an image, (C, H, W), and of grey."""
    wanted = [GREY] if len(image) == 1 else range(len(image) + 1)
    image = image.astype(np.float32)
    return {number: limits(pick(image, number)) for number in wanted}


def encode(flows: np.ndarray) -> np.ndarray:
    """Return the cell mask and the flows, (3, H, W), as int8, in which they are stored."""
    encoded = np.empty(flows.shape, np.int8)
    encoded[0] = flows[0] > 0.5
    encoded[1:] = np.rint(np.clip(flows[1:], -1, 1) * FLOW_UNIT)
    return encoded


def make_field(
    name: str,
    image: np.ndarray,
    flows: np.ndarray,
    known: dict[int, tuple[float, float]],
    channels: Sequence[int],
    *,
    cells: int,
    diameter: float,
    scale: float = 1.0,
    seen_diameter: float = NETWORK_DIAMETER,
) -> TrainingField:
    """Return a field that shows the network `channels` of an image.

    Parameters
    ----------
    image : (C, H, W)
    flows : (3, H, W) float32, or int8 from `encode`
    known : the `percentiles` of the image before it was resized
    channels : Cellpose's two numbers, see `channels_seen`
    cells, diameter, scale, seen_diameter : see `TrainingField`

    Raises
    ------
    InputError
        If the image does not have the channels.
    """
    seen = channels_seen(channels, len(image))
    missing = [number for number in seen if number is not None and number not in known]
    if missing:
        raise InputError(
            f"{name}: channel {missing[0]} of channels {list(channels)} is not in its image, which "
            f"has {len(image)}; choose among 0 (grey) to {len(image)}"
        )
    numbers = tuple(GREY if number is None else number for number in seen)
    ends = tuple((0.0, 0.0) if number is None else known[number] for number in seen)
    return TrainingField(name, image, flows, cells, diameter, scale, seen_diameter, numbers, ends)


def read_index(folder: Path) -> dict:
    """Return the content of a training set's `fields.json`, or raise `InputError`."""
    path = Path(folder) / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise KeyError
    except FileNotFoundError:
        raise InputError(
            f"{folder}: no flows in it ({INDEX} is missing); "
            "write them with src/prepare_data.py --flows_dir"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError):
        raise InputError(
            f"{path}: this version cannot read this index of flows; {REMEDY}"
        ) from None
    return index


def fingerprint(folder: Path) -> str:
    """Return a hash of a training set: that of its index, which holds the hashes of its arrays."""
    read_index(folder)
    return hashlib.sha256((Path(folder) / INDEX).read_bytes()).hexdigest()


def source_hashes(pair: Pair) -> dict[str, str]:
    """Return the hashes of the image and the label map that a field's arrays are computed from."""
    return {
        kind: hashlib.sha256(path.read_bytes()).hexdigest()
        for kind, path in (("image", pair.image), ("labels", pair.labels))
    }


def check_source(folder: Path, pairs: Sequence[Pair]) -> None:
    """Raise `InputError` unless the training set was computed from these files as they are now."""
    sources = {entry["name"]: entry["source"] for entry in read_index(folder)["fields"]}
    faults = Faults(
        f"{pair.field}: not in {folder}; {REMEDY}" for pair in pairs if pair.field not in sources
    )
    faults += [
        f"{name}: in {folder}, but not in {pairs[0].labels.parent}; {REMEDY}"
        for name in sorted(sources.keys() - {pair.field for pair in pairs})
    ]
    faults += [
        f"{pair.field}: {folder} was computed from another image or label map; {REMEDY}"
        for pair in pairs
        if pair.field in sources and sources[pair.field] != source_hashes(pair)
    ]
    faults.raise_all(folder)


def open_fields(folder: Path, channels: Sequence[int]) -> list[TrainingField]:
    """Return the fields of a training set, sorted by name, with arrays that are mapped from disk.

    Raises
    ------
    InputError
        If the folder has no index, an array is missing or cut short, or an image does not have the
        channels.
    """
    folder = Path(folder)
    index = read_index(folder)
    fields = []
    for entry in index["fields"]:
        arrays = {}
        for kind in ("image", "flows"):
            path = folder / f"{entry['name']}_{kind}.npy"
            try:
                arrays[kind] = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise InputError(f"{path}: missing or cut short ({error}); {REMEDY}") from None
        known = {int(number): tuple(pair) for number, pair in entry["percentiles"].items()}
        facts = {key: entry[key] for key in ("cells", "diameter", "scale")}
        facts["seen_diameter"] = index["cell_diameter"]
        fields.append(make_field(entry["name"], **arrays, known=known, channels=channels, **facts))
    return fields
