"""Parameters of fetching: the user's own data, and the weights to start from."""

from typing import ClassVar, Literal

from cellular.base.params import NoneOr, Section, Text


class DataParams(Section):
    """The user's own data, for the data set local."""

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


class WeightsParams(Section):
    """The pretrained weights, which are scored and which training starts from."""

    section: ClassVar[str | None] = "train"

    model_type: Text = "scellseg"
    """weights to start from: a name in the catalogue (scellseg, cyto, cyto2, cyto3, nuclei,
    fine-tuned-cyto, fine-tuned-cyto2), scratch for random weights, or the path of a weights file"""
