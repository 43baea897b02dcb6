"""The training set: fields and their flows, in files that are mapped from disk.

`cellular.preparing.flows` writes such a folder once. A field is three arrays, of which only the
pixels of a crop are read, so that no field has to fit in memory:

    <field>_image.npy   (C, H, W), the channels in the image's dtype, or float32 if resized
    <field>_flows.npy   (3, H, W) int8: cell (1) or background (0), flow in y and in x times 127;
                        or float32: the same three, exactly as Cellpose computes them
    <field>_labels.npy  (H, W) uint16: the number of the cell, 0 for background

The index, `fields.json`, holds the rest: diameters, numbers of cells, percentiles, hashes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cellular.base.errors import Faults, InputError
from cellular.base.files import digest
from cellular.base.params import NETWORK_DIAMETER
from cellular.imaging.fields import Pair
from cellular.imaging.normalisation import limits, normalised

INDEX = "fields.json"
FlowFormat = Literal["int8", "float32"]
FLOW_UNIT = 127  # int8 of a flow of length 1; rounding errors are at most 0.004
REMEDY = "write the flows again with src/prepare_data.py --flows_dir"
GREY = 0  # Cellpose's number for the mean of all channels; 1, 2, 3 are red, green, blue

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Record):
    """What the index holds of a field; see `TrainingField`."""

    name: Annotated[str, Field(pattern="^[^/]+$")]
    cells: Annotated[int, Field(ge=0)]
    diameter: Positive
    scale: Positive
    shape: tuple[int, int]
    percentiles: dict[int, tuple[Finite, Finite]]  # of each channel, before it was resized
    sha256: Annotated[
        dict[Literal["image", "flows", "labels"], Sha256], Field(min_length=3)
    ]  # of the files
    source: Annotated[
        dict[Literal["image", "labels"], Sha256], Field(min_length=2)
    ]  # of the files that they are computed from


class Index(_Record):
    """The index of a training set."""

    format: Literal[3] = 3
    cell_diameter: Positive  # at which the network is to see cells, in pixels
    flow_format: FlowFormat
    fields: Annotated[list[Entry], Field(min_length=1)]


@dataclass(frozen=True)
class TrainingField:
    """A field to train on, with the channels that the network sees."""

    name: str
    image: np.ndarray  # (C, H, W), in memory or mapped
    flows: np.ndarray  # (3, H, W) float32, or int8 in units of 1/127: cell, flow in y, flow in x
    labels: np.ndarray  # (H, W), the number of the cell, 1 to `cells`, or 0
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


def encode(flows: np.ndarray, flow_format: FlowFormat = "int8") -> np.ndarray:
    """Return the cell mask and the flows, (3, H, W) float32, in the format to store them in."""
    if flow_format == "float32":
        return flows
    encoded = np.empty(flows.shape, np.int8)
    encoded[0] = flows[0] > 0.5
    encoded[1:] = np.rint(np.clip(flows[1:], -1, 1) * FLOW_UNIT)
    return encoded


def make_field(
    name: str,
    image: np.ndarray,
    flows: np.ndarray,
    labels: np.ndarray,
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
    labels : (H, W), numbered 1 to `cells`
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
    return TrainingField(
        *(name, image, flows, labels, cells, diameter, scale, seen_diameter, numbers, ends)
    )


def write_index(folder: Path, index: Index) -> None:
    """Write the index of a training set."""
    (folder / INDEX).write_text(index.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_index(folder: Path) -> Index:
    """Return the index of a training set, or raise `InputError`."""
    path = Path(folder) / INDEX
    if not path.is_file():
        raise InputError(
            f"{folder}: no flows in it ({INDEX} is missing); "
            "write them with src/prepare_data.py --flows_dir"
        )
    try:
        return Index.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"{place}: {first['msg']}" if place else first["msg"]
        raise InputError(
            f"{path}: this version cannot read this index of flows ({reason}); {REMEDY}"
        ) from None


def fingerprint(folder: Path) -> str:
    """Return a hash of a training set: that of its index, which holds the hashes of its arrays."""
    read_index(folder)
    return digest(Path(folder) / INDEX)


def source_hashes(pair: Pair) -> dict[str, str]:
    """Return the hashes of the image and the label map that a field's arrays are computed from."""
    return {"image": digest(pair.image), "labels": digest(pair.labels)}


def check_source(folder: Path, pairs: Sequence[Pair]) -> None:
    """Raise `InputError` unless the training set was computed from these files as they are now."""
    sources = {entry.name: entry.source for entry in read_index(folder).fields}
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
        If the folder has no valid index, a file is missing or is not the one that was written, or
        an image does not have the channels. It lists every such file.
    """
    folder = Path(folder)
    index = read_index(folder)
    faults = Faults()
    # Whole files are read for their hashes, about 1 GB a second, but only once in a training.
    paths = faults.map(lambda entry: _checked(folder, entry), index.fields, "flows")
    faults.raise_all(folder)
    # Not in threads: numpy parses the header of a file as Python, and two threads that parse at
    # the same time can fail before Python 3.11.8 and 3.12.2 (issue 106905 of CPython).
    fields = []
    for entry, files in zip(index.fields, paths, strict=True):
        with faults.collect():
            fields.append(_open(entry, files, index, channels))
    faults.raise_all(folder)
    return fields


def _checked(folder: Path, entry: Entry) -> dict[str, Path]:
    """Return the files of a field by kind; raise `InputError` unless they are those written."""
    files: dict[str, Path] = {}
    for kind, expected in entry.sha256.items():
        files[kind] = path = folder / f"{entry.name}_{kind}.npy"
        if not path.is_file() or digest(path) != expected:
            raise InputError(f"{path}: missing, or not the file that was written; {REMEDY}")
    return files


def _open(
    entry: Entry, files: dict[str, Path], index: Index, channels: Sequence[int]
) -> TrainingField:
    arrays = {kind: np.load(path, mmap_mode="r") for kind, path in files.items()}
    return make_field(
        entry.name,
        **arrays,
        known=entry.percentiles,
        channels=channels,
        cells=entry.cells,
        diameter=entry.diameter,
        scale=entry.scale,
        seen_diameter=index.cell_diameter,
    )
