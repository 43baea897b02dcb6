"""Parameters of preparing: the split, the classes, and how the network is to see the fields."""

from typing import ClassVar, Literal

from pydantic import Field

from cellular.base.params import CELL_DIAMETER_HELP, GAMMA_HELP, Diameter, Gamma, Section, Text


class PrepareParams(Section):
    """How fields are split, and their masks combined."""

    section: ClassVar[str | None] = "prepare"

    val_pattern: Text = Field(
        "ST_I06", description="fields with this text in their name are for validation"
    )
    test_pattern: Text = Field(
        "ST_C03", description="fields with this text in their name are for the test"
    )
    formats: list[Literal["png", "tif"]] = Field(
        ["png"], min_length=1, description="file formats of the label maps; several may be given"
    )
    exclude: list[Text] = Field(
        ["Unidentified"],
        min_length=1,
        description="classes that 'all' leaves out (any case); they keep their own folder. "
        "To leave out none, name a class that does not exist",
    )
    cell_diameter: Diameter = Field(None, description=CELL_DIAMETER_HELP)
    gamma: Gamma = Field(1.0, description=GAMMA_HELP)
