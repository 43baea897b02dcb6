"""Parameters of preparing: splits, classes, and the size of cells that the network sees."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from cellular.base.params import CELL_DIAMETER_HELP, Float, NoneOr, Section, Text
from cellular.imaging.fields import Group
from cellular.imaging.trainingset import FlowFormat


class PrepareParams(Section):
    """How fields are split, and how their masks are combined."""

    section: ClassVar[str | None] = "prepare"

    val_pattern: Text = "ST_I06"
    """fields with this text in their name are validation fields"""
    test_pattern: Text = "ST_C03"
    """fields with this text in their name are test fields"""
    split_by: NoneOr[Group] = None
    """none: split fields by the two patterns; plate, well, site or timepoint: by what their names
    tell, so that all fields of one are in one split"""
    test_groups: list[Text] = Field([])
    """the plates, wells, sites or time points for the test: in full (220518-ST C03), by the last
    word if one only has it (C03), or by number (5)"""
    valid_groups: list[Text] = Field([])
    """those for validation; none: the one after the last test group, in natural order"""
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

    @model_validator(mode="after")
    def _groups_of_something(self) -> "PrepareParams":
        for name in ("test_groups", "valid_groups"):
            if getattr(self, name) and self.split_by is None:
                raise ValueError(
                    f"{name} are given, but no split_by; set it to plate, well, site or timepoint, "
                    f"or give no {name}"
                )
        return self
