"""Parameters: what params.yaml may hold, and the same names as flags of the stage scripts.

Each section is a pydantic model. The stage scripts make their flags from these models (see
`cellular.base.cli`), so that a default, a bound and a description stand in one place.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from cellular.base.errors import InputError

ADAMW_LARGEST_RATE = 0.01  # AdamW with the published SGD rate of 0.2 diverges in the first epochs


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number")
    return value


def _none(value: Any) -> Any:
    # DVC hands a null of params.yaml to the command line as the word None.
    return None if isinstance(value, str) and value.lower() in ("none", "null", "") else value


Int = Annotated[int, BeforeValidator(_no_bool)]
Float = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Diameter = Annotated[
    Annotated[Float, Field(gt=0)] | None,
    BeforeValidator(_none),
]
Gamma = Annotated[Float, Field(gt=0, le=4)]
Channel = Annotated[Int, Field(ge=0, le=3)]
Channels = Annotated[list[Channel], Field(min_length=2, max_length=2)]


def _word(value: Any) -> Any:
    # YAML reads 32 without quotes as a number.
    return str(value) if value == 32 and not isinstance(value, bool) else value


Precision = Annotated[Literal["auto", "32", "tf32", "bf16", "fp16"], BeforeValidator(_word)]
Schedule = Literal["cellpose", "cosine", "one-cycle", "constant"]
Words = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]

CHANNELS_HELP = (
    "channel to segment and nuclear channel, as Cellpose counts them: "
    "0 grey (nuclear: none), 1 red, 2 green, 3 blue"
)


CELL_DIAMETER_HELP = (
    "resize the fields to train on once, so that their cells have so many pixels on average, and "
    "let the network see them at that size, in evaluation too; none: fields as they are, and 30 "
    "pixels, as Cellpose. Larger: finer outlines, more pixels to compute"
)
GAMMA_HELP = (
    "raise the images that the network sees, normalised channel by channel, to this power: below "
    "1, dim cells become brighter; 1: as they are"
)


class Section(BaseModel):
    """A group of parameters: unknown names are errors, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class DataParams(Section):
    """The user's own data set, `dataset: local`."""

    path: Annotated[str | None, BeforeValidator(_none)] = Field(
        None, description="folder of your own images and masks, for the data set local"
    )
    layout: Literal["auto", "paper", "labels", "cellpose", "seg"] = Field(
        "auto",
        description="how they lie there. paper: images/<field>.<ext>, "
        "masks/<field>/<class>/<any name>.png; labels: images/<field>.<ext>, "
        "masks/<field>.<ext>; cellpose: <field>.<ext> or <field>_img.<ext> beside "
        "<field>_masks.<ext>; seg: <field>.<ext> beside <field>_seg.npy. auto: what is found",
    )
    version: Annotated[str | None, BeforeValidator(_none)] = Field(
        None,
        description="any word, to be changed when the files in the folder have changed: DVC does "
        "not watch the folder and would take the earlier result",
    )


class PrepareParams(Section):
    """How fields are split and their masks combined."""

    val_pattern: str = Field(
        "ST_I06", min_length=1, description="fields with this text in their name validate"
    )
    test_pattern: str = Field(
        "ST_C03", min_length=1, description="fields with this text in their name test"
    )
    formats: list[Literal["png", "tif"]] = Field(
        ["png"], min_length=1, description="file formats of the label maps; several may be given"
    )
    exclude: Words = Field(
        ["Unidentified"],
        description="classes that 'all' leaves out (any case); they keep their own folder. "
        "To leave out none, name a class that does not exist",
    )
    cell_diameter: Diameter = Field(None, description=CELL_DIAMETER_HELP)
    gamma: Gamma = Field(1.0, description=GAMMA_HELP)


class TrainParams(Section):
    """How the network is trained. The defaults of the pipeline are in params.yaml."""

    model_type: str = Field(
        "cyto2",
        min_length=1,
        description="weights to start from: a name in the catalogue (scellseg, cyto, cyto2, cyto3, "
        "nuclei), scratch for random weights, or the path of a weights file",
    )
    n_epochs: Int = Field(500, ge=1, description="epochs, at most")
    learning_rate: Float = Field(0.2, gt=0, description="learning rate, at its highest")
    schedule: Schedule = Field(
        "cellpose",
        description="how the learning rate rises and falls. cellpose: ten epochs up, and down at "
        "the end of runs of more than 100; cosine: a tenth up, then down to 0; one-cycle: three "
        "tenths up, then down to 0; constant: a tenth up",
    )
    weight_decay: Float = Field(1e-5, ge=0, description="weight decay")
    momentum: Float = Field(0.9, ge=0, lt=1, description="momentum of SGD; AdamW has none")
    batch_size: Int = Field(8, ge=1, description="crops a step, of each process")
    use_sgd: bool = Field(True, description="SGD, as published; otherwise AdamW")
    ema_decay: Float = Field(
        0.0,
        ge=0,
        lt=1,
        description="keep a running mean of the weights with this decay a step (0.95 is that of "
        "about 20 steps), and validate and save the mean; 0: the weights themselves",
    )
    rescale: bool = Field(
        True,
        description="scale every crop so that its field's cells have the size that the "
        "network is to see them at: 30 px, or the cell_diameter of the flows",
    )
    crop_size: Int = Field(224, ge=32, multiple_of=16, description="side of a crop, in pixels")
    scale_range: Annotated[Annotated[Float, Field(ge=0, le=1.5)] | None, BeforeValidator(_none)] = (
        Field(
            None,
            description="crops are scaled at random by 1 - r/2 to 1 + r/2; none: Cellpose's range, "
            "0.5 with rescale and 1 without",
        )
    )
    flip: bool = Field(True, description="flip crops at random; they are always rotated")
    brightness: Float = Field(
        0.0,
        ge=0,
        le=3,
        description="multiply the intensities of each crop by exp(-b) to exp(b), at random; 0: off",
    )
    noise: Float = Field(
        0.0,
        ge=0,
        le=1,
        description="add Gaussian noise with a standard deviation of 0 to this, at random, where 1 "
        "is the range of the field's intensities (1st to 99th percentile); 0: off",
    )
    images_per_epoch: Annotated[Int | None, BeforeValidator(_none)] = Field(
        None, ge=1, description="crops an epoch; none: one of each field"
    )
    valid_images: Annotated[Int | None, BeforeValidator(_none)] = Field(
        None, ge=1, description="crops that the validation loss is taken on; none: one a field"
    )
    valid_every: Int = Field(1, ge=1, description="epochs from one validation to the next")
    keep: Literal["valid_loss", "ap50", "last"] = Field(
        "valid_loss",
        description="the weights that are kept. valid_loss: those of the epoch with the lowest "
        "validation loss; ap50: with the highest AP@0.5 on the whole validation fields (seconds a "
        "field); last: those of the last epoch",
    )
    patience: Annotated[Int | None, BeforeValidator(_none)] = Field(
        None, ge=1, description="stop after so many validations without a better one; none: never"
    )
    save_every: Int = Field(
        5, ge=1, description="epochs from one saving of the state, to go on from, to the next"
    )
    channels: Channels = Field([0, 0], description=CHANNELS_HELP)
    min_train_masks: Int = Field(
        5, ge=1, description="training fields with fewer cells are left out, and named"
    )
    precision: Precision = Field(
        "auto",
        description="of the network's arithmetic. 32: as Cellpose; tf32, fp16: of a GPU; auto: "
        "bf16 where the device computes in it (newer GPUs, CPUs with AMX), otherwise 32",
    )
    channels_last: bool = Field(
        True, description="tensors as (n, H, W, C) in memory: faster, with other rounding errors"
    )

    @model_validator(mode="after")
    def _stable(self) -> "TrainParams":
        if not self.use_sgd and self.learning_rate > ADAMW_LARGEST_RATE:
            raise ValueError(
                f"AdamW with learning_rate {self.learning_rate:g} diverges; give at most "
                f"{ADAMW_LARGEST_RATE:g} (5e-4 is a good start), or use_sgd: true"
            )
        return self


class EvalDiameters(Section):
    """The cell diameter that each model is scored with."""

    pretrained: Diameter = Field(121.0, description="pixels; none: the one stored in the weights")
    finetuned: Diameter = Field(None, description="pixels; none: the one stored in the weights")


class Inference(Section):
    """How images become flows and cell probability, and these become cells."""

    resample: bool = Field(
        False,
        description="trace cells at full resolution with Cellpose's own eval, in 32 bits: about "
        "twenty times slower; on the sample AP@0.5 and AP@0.75 differ by 0.005. Otherwise cells "
        "are traced at the network's scale, and their labels enlarged",
    )
    flow_threshold: Float = Field(
        0.4, ge=0, description="largest flow error of a cell that is kept; 0 keeps all"
    )
    cellprob_threshold: Float = Field(
        0.0, ge=-6, le=6, description="pixels above it belong to cells; lower finds more, larger"
    )
    augment: bool = Field(
        False,
        description="mean over tiles that overlap by half and are mirrored in turn, as Cellpose's "
        "augment: better, in twice the time",
    )
    batch_size: Annotated[Int | None, BeforeValidator(_none)] = Field(
        None,
        ge=1,
        description="tiles that the network sees at once, of one field or several; none: 2 on a "
        "CPU (more do not fit its cache), 16 on a GPU",
    )
    precision: Precision = Field(
        "auto",
        description="of the network's arithmetic. 32: as Cellpose; tf32, fp16: of a GPU; auto: "
        "bf16 where the device computes in it (newer GPUs, CPUs with AMX), otherwise 32",
    )

    @model_validator(mode="after")
    def _cellpose_is_32_bits(self) -> "Inference":
        if self.resample and self.precision not in ("auto", "32"):
            raise ValueError(
                f"resample: true is Cellpose's own eval, in 32 bits; precision "
                f"{self.precision} goes with resample: false"
            )
        return self


class SegmentParams(Inference):
    """How one model segments images."""

    channels: Channels = Field([0, 0], description=CHANNELS_HELP)
    gamma: Gamma = Field(1.0, description=f"{GAMMA_HELP}; that which the model was trained with")
    diameter: Diameter = Field(
        None, description="cell diameter in pixels; none: the one stored in the weights"
    )


class Scoring(Section):
    """What is scored, and drawn."""

    excluded: Literal["background", "ignore"] = Field(
        "background",
        description="cells of excluded classes (Unidentified). background: finding one is a fault, "
        "as in the paper; ignore: their pixels are judged neither way",
    )
    overlays: Int = Field(2, ge=1, description="fields of each split that are drawn, worst first")
    worst_cells: Int = Field(
        20, ge=0, description="cells of each split that are shown cropped on one sheet, worst first"
    )


class EvalParams(Inference, Scoring):
    """How models are scored; `diameter` has one entry for each model."""

    diameter: EvalDiameters = EvalDiameters()


class Params(Section):
    """The whole of params.yaml."""

    dataset: str = Field(min_length=1)
    class_name: str = Field("all", min_length=1)
    seed: Int = Field(0, ge=0, lt=2**31)
    data: DataParams = DataParams()
    prepare: PrepareParams
    train: TrainParams
    eval: EvalParams


def validate(model: type[Section], values: dict[str, Any], where: str) -> Any:
    """Return `values` as `model`, or raise one `InputError` that tells every fault in them."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            name = ".".join(str(part) for part in fault["loc"])
            # "Value error, ..." is pydantic's prefix for our own sentences.
            reason = fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "extra_forbidden":
                known = ", ".join(sorted(model_at(model, fault["loc"][:-1]).model_fields))
                reason = f"no such parameter; known here: {known}"
            elif not isinstance(fault["input"], dict):
                reason += f" (found {fault['input']!r})"
            faults.append(f"{where}: {name + ': ' if name else ''}{reason}")
        told = (
            faults[0]
            if len(faults) == 1
            else f"{where}: {len(faults)} faults\n  "
            + "\n  ".join(fault.removeprefix(f"{where}: ") for fault in faults)
        )
        raise InputError(told) from None


def model_at(model: type[Section], location: tuple) -> type[Section]:
    """Return the section inside `model` that `location` leads to."""
    for name in location:
        model = model.model_fields[name].annotation
    return model


def load_params(path: Path) -> Params:
    """Read and validate a params.yaml; any fault in it raises `InputError`."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; run from the repository's root") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds {type(values).__name__}, expected names with values")
    return validate(Params, values, str(path))
