"""Parameters of training. The defaults of the pipeline are in params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from cellular.base.params import Channels, Float, Int, NoneOr, Precision, Section, Text

ADAMW_LARGEST_RATE = 0.01  # AdamW with the published SGD rate of 0.2 diverges in the first epochs
Schedule = Literal["cellpose", "cosine", "one-cycle"]


class SavingParams(Section):
    """How often the state of a training is saved. This changes no result, so DVC ignores it."""

    save_every: Int = Field(
        5,
        ge=1,
        description="epochs between two savings of the state that a killed run resumes from",
    )


class TrainParams(Section):
    """How the network is trained."""

    section: ClassVar[str | None] = "train"

    model_type: Text = Field(
        "cyto2",
        description="weights to start from: a name in the catalogue (scellseg, cyto, cyto2, cyto3, "
        "nuclei, fine-tuned-cyto, fine-tuned-cyto2), scratch for random weights, or the path of a "
        "weights file",
    )
    n_epochs: Int = Field(500, ge=1, description="largest number of epochs")
    learning_rate: Float = Field(0.2, gt=0, description="highest learning rate")
    schedule: Schedule = Field(
        "cellpose",
        description="how the learning rate changes. cellpose: it rises for ten epochs, and falls "
        "at the end of runs of more than 100; cosine: it rises for a tenth of the steps, then "
        "falls to 0; one-cycle: it rises for three tenths, then falls to 0",
    )
    weight_decay: Float = Field(1e-5, ge=0, description="weight decay of the optimizer")
    momentum: Float = Field(0.9, ge=0, lt=1, description="momentum of SGD; AdamW does not use it")
    batch_size: Int = Field(8, ge=1, description="crops in a step of each process")
    use_sgd: bool = Field(True, description="SGD as published; false: AdamW")
    ema_decay: Float = Field(
        0.0,
        ge=0,
        lt=1,
        description="validate and keep a running mean of the weights, with this decay in each step "
        "(0.95 averages about 20 steps); 0: use the weights themselves",
    )
    rescale: bool = Field(
        True,
        description="scale every crop so that the cells of its field have the diameter at which "
        "the network is to see them: the cell_diameter of the flows, or 30 px",
    )
    crop_size: Int = Field(
        224, ge=32, multiple_of=16, description="height and width of a crop in pixels"
    )
    scale_range: NoneOr[Annotated[Float, Field(ge=0, le=1.5)]] = Field(
        None,
        description="crops are scaled at random by 1 - r/2 to 1 + r/2; none: Cellpose's range, "
        "0.5 with rescale and 1 without",
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
    images_per_epoch: NoneOr[Annotated[Int, Field(ge=1)]] = Field(
        None, description="crops in an epoch; none: one of each field"
    )
    valid_images: NoneOr[Annotated[Int, Field(ge=1)]] = Field(
        None, description="crops of which the validation loss is computed; none: one of each field"
    )
    valid_every: Int = Field(1, ge=1, description="epochs between two validations")
    keep: Literal["valid_loss", "ap50", "last"] = Field(
        "valid_loss",
        description="which weights are kept. valid_loss: those of the epoch with the lowest "
        "validation loss; ap50: those with the highest AP@0.5 on the whole validation fields, "
        "which takes seconds a field; last: those of the last epoch",
    )
    patience: NoneOr[Annotated[Int, Field(ge=1)]] = Field(
        None,
        description="stop after this number of validations without improvement; none: never",
    )
    channels: Channels = Field(
        [0, 0],
        description="channel to segment and nuclear channel, as Cellpose numbers them: 0 grey "
        "(nuclear: none), 1 red, 2 green, 3 blue",
    )
    min_train_masks: Int = Field(
        5, ge=1, description="training fields with fewer cells are left out, and listed in the log"
    )
    precision: Precision = Field(
        "auto",
        description="number format in which the network computes. 32: as Cellpose; tf32, fp16: on "
        "a GPU only; auto: bf16 where the device has instructions for it, otherwise 32",
    )
    channels_last: bool = Field(
        True,
        description="keep tensors as (n, H, W, C) in memory: faster, with other rounding errors",
    )

    @model_validator(mode="after")
    def _stable(self) -> "TrainParams":
        if not self.use_sgd and self.learning_rate > ADAMW_LARGEST_RATE:
            raise ValueError(
                f"AdamW with learning_rate {self.learning_rate:g} diverges; give at most "
                f"{ADAMW_LARGEST_RATE:g} (5e-4 is a good start), or use_sgd: true"
            )
        return self
