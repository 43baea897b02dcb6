"""Parameters of training. The defaults of the pipeline are in params.yaml."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from cellular.base.params import Channels, Float, Int, NoneOr, Precision, Section, Text
from cellular.imaging.fields import SPLITS

# Larger values can only be mistakes: they would end in a lack of memory, or in weights of no use.
MOST_EPOCHS = 100_000
MOST_CROPS = 100_000  # in an epoch; each is planned before the epoch begins, in about 1 kB
MOST_CROPS_IN_ALL = 100_000_000  # a learning rate is kept for each step
LARGEST_CROP = 1024  # px; a batch of 8 such crops takes some 30 GB
LARGEST_RATE = 100.0  # with SGD at this rate the loss was infinite after two steps, in all trials
ADAMW_LARGEST_RATE = 0.01  # AdamW with the published SGD rate of 0.2 diverges in the first epochs
Schedule = Literal["cellpose", "cosine", "one-cycle"]


class SavingParams(Section):
    """How often the state of a training is saved. This changes no result, so DVC ignores it."""

    save_every: Int = Field(5, ge=1)
    """epochs between two savings of the state that a killed run resumes from"""


class TrainParams(Section):
    """How the network is trained."""

    section: ClassVar[str | None] = "train"

    model_type: Text = "cyto2"
    """weights to start from: a name in the catalogue (scellseg, cyto, cyto2, cyto3, nuclei,
    fine-tuned-cyto, fine-tuned-cyto2), scratch for random weights, or the path of a weights file"""
    n_epochs: Int = Field(500, ge=1, le=MOST_EPOCHS)
    """largest number of epochs"""
    learning_rate: Float = Field(0.2, gt=0, le=LARGEST_RATE)
    """highest learning rate"""
    schedule: Schedule = "cellpose"
    """how the learning rate changes. cellpose: it rises for ten epochs, and falls at the end of
    runs of more than 100; cosine: it rises for a tenth of the steps, then falls to 0; one-cycle: it
    rises for three tenths, then falls to 0"""
    weight_decay: Float = Field(1e-5, ge=0, le=1)
    """weight decay of the optimizer"""
    momentum: Float = Field(0.9, ge=0, lt=1)
    """momentum of SGD; AdamW does not use it"""
    batch_size: Int = Field(8, ge=1, le=1024)
    """crops in a step of each process"""
    use_sgd: bool = True
    """SGD as published; false: AdamW"""
    rescale: bool = True
    """scale every crop so that the cells of its field have the diameter at which the network is to
    see them: the cell_diameter of the flows, or 30 px"""
    crop_size: Int = Field(224, ge=32, le=LARGEST_CROP, multiple_of=16)
    """height and width of a crop in pixels"""
    scale_range: NoneOr[Annotated[Float, Field(ge=0, le=1.5)]] = None
    """crops are scaled at random by 1 - r/2 to 1 + r/2; none: Cellpose's range, 0.5 with rescale
    and 1 without"""
    flip: bool = True
    """flip crops at random; they are always rotated"""
    paste_cells: Float = Field(0.0, ge=0, le=1)
    """part of the crops on which up to four whole cells of another crop are pasted, at half to full
    size: small cells, and cells on top of each other, become more frequent (Ghiasi et al. 2021,
    arXiv:2012.07177); 0: off"""
    background_weight: Float = Field(1.0, ge=0, le=1)
    """smallest weight of a background pixel in the loss. More than 4 px from any annotated cell, it
    weighs 1 - p where the network sees a cell with probability p, but at least this, so cells that
    nobody annotated cost less; 1: off, all pixels weigh the same"""
    images_per_epoch: NoneOr[Annotated[Int, Field(ge=1, le=MOST_CROPS)]] = None
    """crops in an epoch; none: one of each field"""
    valid_images: NoneOr[Annotated[Int, Field(ge=1, le=MOST_CROPS)]] = None
    """crops of which the validation loss is computed; none: one of each field"""
    valid_every: Int = Field(1, ge=1)
    """epochs between two validations"""
    keep: Literal["valid_loss", "ap50", "last"] = "valid_loss"
    """which weights are kept. valid_loss: those of the epoch with the lowest validation loss; ap50:
    those with the highest AP@0.5 on the whole validation fields, and of several such the one with
    the lowest validation loss, which takes seconds a field; last: those of the last epoch"""
    patience: NoneOr[Annotated[Int, Field(ge=1)]] = None
    """stop after this number of validations without improvement; none: never"""
    all_fields: bool = False
    """train on the fields of the validation and of the test too, for a model that is to be used,
    once its recipe is chosen. No field is left to choose an epoch by, so keep has to be last and
    patience none, and no score tells how the model does on other fields"""
    channels: Channels = Field([0, 0])
    """channel to segment and nuclear channel, as Cellpose numbers them: 0 grey (nuclear: none), 1
    red, 2 green, 3 blue"""
    min_train_masks: Int = Field(5, ge=1)
    """training fields with fewer cells are left out, and listed in the log"""
    precision: Precision = "auto"
    """number format in which the network computes. 32: as Cellpose; tf32, fp16: on a GPU only;
    auto: bf16 where the device has instructions for it, otherwise 32"""
    channels_last: bool = True
    """keep tensors as (n, H, W, C) in memory: faster, with other rounding errors"""

    @property
    def trained_on(self) -> tuple[str, ...]:
        """The splits whose fields are trained on."""
        return SPLITS if self.all_fields else SPLITS[:1]

    @model_validator(mode="after")
    def _feasible(self) -> "TrainParams":
        if not self.use_sgd and self.learning_rate > ADAMW_LARGEST_RATE:
            raise ValueError(
                f"AdamW with learning_rate {self.learning_rate:g} diverges; give at most "
                f"{ADAMW_LARGEST_RATE:g} (5e-4 is a good start), or use_sgd: true"
            )
        if self.n_epochs * (self.images_per_epoch or 1) > MOST_CROPS_IN_ALL:
            raise ValueError(
                f"n_epochs {self.n_epochs} of images_per_epoch {self.images_per_epoch} are more "
                f"than {MOST_CROPS_IN_ALL:,} crops; lower one of them"
            )
        if self.all_fields and (self.keep != "last" or self.patience):
            raise ValueError(
                "with all_fields: true the validation fields are trained on, and cannot choose "
                f"among epochs (found keep: {self.keep} and patience: {self.patience}); give keep: "
                "last and patience: none"
            )
        return self
