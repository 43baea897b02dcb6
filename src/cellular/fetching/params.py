"""Parameters of fetching: data and how they are shown, and the weights to start from."""

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from cellular.base.params import Float, NoneOr, Section, Text
from cellular.imaging.rendering import COLOURS, ends_of


def _colour(name: str) -> str:
    if name not in COLOURS:
        raise ValueError(f"expected colours among {', '.join(COLOURS)}")
    return name


def _range(shown: str) -> str:
    ends_of(np.zeros((1, 1)), shown)
    return shown


class DataParams(Section):
    """The user's own data, for the data set local, and how channels become colours."""

    section: ClassVar[str | None] = "data"

    path: NoneOr[Text] = None
    """folder of your own images and masks, for the data set local; a relative path starts at the
    repository's root"""
    layout: Literal["auto", "paper", "labels", "cellpose", "seg"] = "auto"
    """how the files in the folder are arranged. paper: images/<field>.<ext>,
    masks/<field>/<class>/<any name>.png; labels: images/<field>.<ext>, masks/<field>.<ext>;
    cellpose: <field>.<ext> or <field>_img.<ext> beside <field>_masks.<ext>; seg: <field>.<ext>
    beside <field>_seg.npy; auto: the layout that the files have"""
    version: NoneOr[Text] = None
    """any word; change it whenever files in the folder change, because DVC does not watch the
    folder and would reuse the earlier result"""
    pixel_size: NoneOr[Annotated[Float, Field(gt=0)]] = None
    """edge of a pixel of your images in µm, which the settings of a trained model tell; none: not
    known. That of the catalogue's data sets is known"""
    colours: list[Annotated[Text, AfterValidator(_colour)]] = Field([])
    """make 8-bit images in red, green and blue: a colour for each channel of the images (red,
    green, blue, cyan, magenta, yellow, grey, or black to leave it out), which are added up; none
    given: images are taken as they are"""
    ranges: list[Annotated[Text, AfterValidator(_range)]] = Field([])
    """for each of colours the values that are shown from black to the full colour: <low>..<high>;
    minmax, those of the channel in each image; or percentiles, its 1st and 99th, as Cellpose
    normalises; none given: percentiles for all"""
    rendering: Literal["merged", "raw"] = "merged"
    """images of the data set cellular. merged: 8-bit pictures as its authors merged the channels,
    on which their network and published weights were trained; raw: the three 16-bit channels"""

    @model_validator(mode="after")
    def _one_range_for_each_colour(self) -> "DataParams":
        if len(self.ranges) not in (0, len(self.colours)):
            raise ValueError(
                f"{len(self.ranges)} ranges for {len(self.colours)} colours; give one for each "
                "colour, or none"
            )
        return self


class WeightsParams(Section):
    """The pretrained weights, which are scored and which training starts from."""

    section: ClassVar[str | None] = "train"

    model_type: Text = "scellseg"
    """weights to start from: a name in the catalogue (scellseg, cyto, cyto2, cyto3, nuclei,
    fine-tuned-cyto, fine-tuned-cyto2), scratch for random weights, or the path of a weights file"""
