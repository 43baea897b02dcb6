"""Models: a folder with weights, the settings to use them with, and a card.

<any name>      weights, as Cellpose 3 opens them
settings.json   how the model was scored and is to be used, and what it was made from (`Record`)
README.md       the card, for people; `cellular.reporting.card` writes both
"""

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from cellular.base.errors import InputError
from cellular.base.files import digest
from cellular.base.params import Channels, Float, NoneOr, Section, Text, parse_params, validate
from cellular.models.params import Diameter, ModelParams
from cellular.network.settings import Settings

log = logging.getLogger(__name__)

SETTINGS = "settings.json"
CARD = "README.md"
REMEDY = "write it again with src/card.py"


class Seen(Section):
    """What the images of the training were like."""

    channels: Annotated[list[int], Field(min_length=1)]  # numbers of channels that occur
    brightness: tuple[Float, Float]  # lowest and highest, see `cellular.imaging.normalisation`
    saturated: Float  # largest share of an image's pixels at the end of the range
    diameter: Float  # px, of the annotated cells, as `cellular.evaluating` finds it
    pixel_size: NoneOr[Annotated[Float, Field(gt=0)]]  # µm; None: not known


class WeightsFile(Section):
    """The weights of a model."""

    file: Annotated[Text, Field(pattern=r"^[^/\\]+$")]  # its name in the folder
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Record(Section):
    """The content of settings.json."""

    weights: WeightsFile
    channels: Channels
    normalisation: dict[str, Any]  # for people; it is Cellpose's own
    diameter: Diameter  # px, of the cells that the model looks for
    network_diameter: Diameter  # px, to which cells are resized for the network
    flow_threshold: Float
    cellprob_threshold: Float
    resample: bool
    augment: bool
    seen: NoneOr[Seen] = None
    cellpose: str  # version
    run: dict[str, Any]  # what the weights are the result of


@dataclass(frozen=True)
class Model:
    """Weights, and how they want to be used."""

    weights: Path
    record: Record | None  # None: weights alone

    @property
    def settings(self) -> Settings:
        """How the model finds cells, if nobody says otherwise."""
        return ModelParams(**self.defaults).settings()

    @property
    def card(self) -> str | None:
        """The text of the card, if there is one."""
        path = self.weights.with_name(CARD)
        return path.read_text(encoding="utf-8") if self.record and path.is_file() else None

    @property
    def defaults(self) -> dict[str, Any]:
        """The parameters of `ModelParams` that the model states."""
        if self.record is None:
            return {}
        return self.record.model_dump(include=set(ModelParams.model_fields))


def open_model(path: Path, given: Collection[str] = ()) -> Model:
    """Return the model in a folder, or of a weights file that is alone.

    Parameters
    ----------
    given : the names of the parameters that the caller states; weights alone say nothing of
        channels, so unless these are given, the log warns of it

    Raises
    ------
    InputError
        If there is no model at `path`, or its weights are not those of its settings.
    """
    path = Path(path)
    if path.is_file():
        if "channels" not in given:
            log.warning(
                "%s: weights without %s, so they are used in grey, on cells of the diameter that "
                "they store, with Cellpose's thresholds; name the folder of a model, or state "
                "--channels",
                *(path, SETTINGS),
            )
        return Model(path, None)
    settings = path / SETTINGS
    if not settings.is_file():
        raise InputError(
            f"{path}: no model there, expected a folder with {SETTINGS}, or a weights file; make "
            "one with `make repro`, or fetch one with `dvc pull` or `dvc artifacts get`"
        )
    record = read_record(settings)
    weights = path / record.weights.file
    if not weights.is_file():
        raise InputError(f"{weights}: missing, but {settings} names it; fetch the model again")
    if digest(weights) != record.weights.sha256:
        raise InputError(f"{weights}: not the weights that {settings} describes; {REMEDY}")
    return Model(weights, record)


def read_record(path: Path) -> Record:
    """Read the settings of a model; `InputError` if they are not as `Record` describes."""
    # JSON is YAML; this parser names what is wrong, and refuses a name that is given twice.
    return validate(Record, parse_params(path.read_bytes(), path), str(path))


def record_text(record: Record) -> str:
    """Return the content of settings.json."""
    return json.dumps(record.model_dump(), indent=2, allow_nan=False) + "\n"
