"""Parameters of preparing: splits, classes, and the size of cells that the network sees."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cellular.base.params import CELL_DIAMETER_HELP, Float, NoneOr, Section, Text
from cellular.imaging.trainingset import FlowFormat


class PrepareParams(Section):
    """How fields are split, and how their masks are combined."""

    section: ClassVar[str | None] = "prepare"

    val_pattern: Text = "ST_I06"
    """fields with this text in their name are validation fields"""
    test_pattern: Text = "ST_C03"
    """fields with this text in their name are test fields"""
    formats: list[Literal["png", "tif"]] = Field(["png"], min_length=1)
    """file formats of the label maps; several may be given"""
    exclude: list[Text] = Field(["Unidentified"])
    """classes that 'all' leaves out, in upper or lower case; each still has its own folder. To
    leave out none, give an empty list in params.yaml, or any name that no class has"""
    skip_unused: bool = False
    """pass over files in the folders of images and masks that have no place in the layout, and list
    them in the log; otherwise they are an error"""
    # Cells of fewer pixels have no shape; of more, a crop of 1024 px does not show a whole one.
    cell_diameter: NoneOr[Annotated[Float, Field(ge=5, le=500)]] = Field(
        None, description=CELL_DIAMETER_HELP
    )
    flow_format: FlowFormat = "int8"
    """number format of the flows on disk. int8: rounded by at most 0.004 of their length; float32:
    Cellpose's own numbers, in four times the size"""
