"""The training set: fields with their flows as the trainer reads them, mapped from disk.

`cellular.preparing.flows` writes such a folder once. A field is two arrays, so that a crop costs
the reading of its own pixels alone, and no field has to fit in memory:

    <field>_image.npy   (C, H, W), the channels as they were taken, or gamma-corrected
    <field>_flows.npy   (3, H, W) int8: cell or not, flow in y and in x times 127

and `fields.json` tells the rest: diameter, number of cells, percentiles, hashes.
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
FLOW_UNIT = 127  # of int8: an error of at most 0.004 of a flow's unit length
GREY = 0  # Cellpose's number of the mean of all channels; 1, 2, 3 are red, green, blue


@dataclass(frozen=True)
class TrainingField:
    """A field as the network is trained on it."""

    name: str
    image: np.ndarray  # (C, H, W), in memory or mapped
    flows: np.ndarray  # (3, H, W) float32, or int8 in units of 1/127: cell, flow in y, flow in x
    cells: int
    diameter: float  # median diameter of the cells, in pixels of the arrays above
    scale: float  # pixels of the arrays in a pixel of the user's image
    seen_diameter: float  # at which the network is to see cells, in pixels
    channels: tuple[int, ...]  # that the network sees, as Cellpose numbers them
    limits: tuple[tuple[float, float], ...]  # 1st and 99th percentile of each, over the whole field

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[-2:]

    def image_at(self, window: tuple[slice, slice]) -> np.ndarray:
        """Return the network's channels in a window, normalised: (n, h, w) float32.

        The same values as Cellpose's `convert_image` and `normalize_img` of the whole field.
        """
        raw = np.asarray(self.image[(slice(None), *window)]).astype(np.float32)
        shown = np.zeros((len(self.channels), *raw.shape[1:]), np.float32)
        for number, (channel, ends) in enumerate(zip(self.channels, self.limits, strict=True)):
            shown[number] = normalised(pick(raw, channel), *ends)
        return shown

    def flows_at(self, window: tuple[slice, slice]) -> np.ndarray:
        """Return cell and flows in a window: (3, h, w) float32."""
        flows = np.asarray(self.flows[(slice(None), *window)])
        if flows.dtype != np.int8:
            return flows.astype(np.float32)
        decoded = flows.astype(np.float32)
        decoded[1:] /= FLOW_UNIT
        return decoded


def pick(image: np.ndarray, channel: int) -> np.ndarray:
    """Return a channel of (C, H, W), or the mean of all for `GREY`: (H, W)."""
    if channel != GREY and len(image) > 1:
        return image[channel - 1]
    return image.mean(axis=0)


def channels_seen(channels: Sequence[int], count: int) -> tuple[int | None, ...]:
    """Return what each input of the network sees of an image of `count` channels; None: nothing.

    Cellpose's meaning of two numbers: the channel to segment (0: grey) and the nuclear one (0:
    none). An image of one channel, and grey, have no second input.
    """
    first, second = channels
    if count == 1 or first == GREY:
        return GREY, None
    return first, second or None


def percentiles(image: np.ndarray) -> dict[int, tuple[float, float]]:
    """Return the 1st and 99th percentile of grey and of each channel of (C, H, W), as Cellpose."""
    wanted = [GREY] if len(image) == 1 else range(len(image) + 1)
    image = image.astype(np.float32)
    return {number: limits(pick(image, number)) for number in wanted}


def encode(flows: np.ndarray) -> np.ndarray:
    """Return (3, H, W) cell and unit flows as they are stored: int8."""
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
    """Return a field that shows `channels` (Cellpose's pair of numbers) of an image, (C, H, W)."""
    seen = channels_seen(channels, len(image))
    missing = [number for number in seen if number is not None and number not in known]
    if missing:
        raise InputError(
            f"{name}: channel {missing[0]} of channels {list(channels)} is not in its image, which "
            f"has {len(image)}; choose among 0 (grey) to {len(image)}"
        )
    return TrainingField(
        name, image, flows, cells, diameter, scale, seen_diameter,
        tuple(GREY if number is None else number for number in seen),
        tuple((0.0, 0.0) if number is None else known[number] for number in seen),
    )  # fmt: skip


def read_index(folder: Path) -> dict:
    """Return what `fields.json` of a training set tells, or raise `InputError`."""
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
            f"{path}: no index of flows that this version reads; "
            "write them anew with src/prepare_data.py --flows_dir"
        ) from None
    return index


def fingerprint(folder: Path) -> str:
    """Return a hash of all that is in a training set (through the hashes in its index)."""
    read_index(folder)
    return hashlib.sha256((Path(folder) / INDEX).read_bytes()).hexdigest()


def source_hashes(pair: Pair) -> dict[str, str]:
    """Return the hashes of the files that a field's arrays are made from."""
    return {
        kind: hashlib.sha256(path.read_bytes()).hexdigest()
        for kind, path in (("image", pair.image), ("labels", pair.labels))
    }


def check_source(folder: Path, pairs: Sequence[Pair]) -> None:
    """Raise `InputError` unless the arrays were made from these files, as they are now."""
    made = {told["name"]: told["source"] for told in read_index(folder)["fields"]}
    remedy = "write the flows anew with src/prepare_data.py --flows_dir"
    faults = Faults(
        f"{pair.field}: not in {folder}; {remedy}" for pair in pairs if pair.field not in made
    )
    faults += [
        f"{name}: in {folder}, but not in {pairs[0].labels.parent}; {remedy}"
        for name in sorted(made.keys() - {pair.field for pair in pairs})
    ]
    faults += [
        f"{pair.field}: {folder} was made from another image or label map; {remedy}"
        for pair in pairs
        if pair.field in made and made[pair.field] != source_hashes(pair)
    ]
    faults.raise_all(folder)


def open_fields(folder: Path, channels: Sequence[int]) -> list[TrainingField]:
    """Return the fields of a training set, sorted by name, mapped and not read.

    Raises
    ------
    InputError
        If there is no such folder, a file of it is missing or of another size, or a field does not
        have the channels.
    """
    folder = Path(folder)
    index = read_index(folder)
    fields = []
    for told in index["fields"]:
        arrays = {}
        for kind in ("image", "flows"):
            path = folder / f"{told['name']}_{kind}.npy"
            try:
                arrays[kind] = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{path}: missing or cut short ({error}); "
                    "write the flows anew with src/prepare_data.py --flows_dir"
                ) from None
        known = {int(number): tuple(pair) for number, pair in told["percentiles"].items()}
        fields.append(
            make_field(
                told["name"],
                arrays["image"],
                arrays["flows"],
                known,
                channels,
                cells=told["cells"],
                diameter=told["diameter"],
                scale=told["scale"],
                seen_diameter=index["cell_diameter"],
            )
        )
    return fields
