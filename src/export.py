r"""Export a model for other programs: as a package of bioimage.io, which holds a test of itself.

Example:
    python src/export.py models/finetuned --image data/raw/images/Timepoint_001_220518-ST_C03_s3.jpg
    bioimageio test exported
"""

from collections.abc import Sequence
from pathlib import Path

import yaml

from cellular.base import cli
from cellular.base.errors import InputError
from cellular.base.files import check_apart, check_new
from cellular.exporting import bioimageio
from cellular.imaging.images import read_image
from cellular.models.folders import open_model

CITATION = Path(__file__).parents[1] / "CITATION.cff"
IMAGES = Path("data/raw/images")


def main(argv: Sequence[str] | None = None) -> str:
    """Write the package and return a line of result."""
    parser = cli.Parser(__doc__)
    parser.path("model", help="folder of a model, or its weights alone")
    parser.path("--output", help="folder to write", default="exported")
    parser.add_argument(
        "--format", choices=["bioimageio"], default="bioimageio", help="(default: bioimageio)"
    )
    parser.path(
        "--image",
        help="image with cells, of whose middle the package's test is made (default: the first of "
        f"{IMAGES})",
    )
    parser.force()
    args = parser.parse_args(argv)
    check_new(args.output, force=args.force)
    image = args.image or _first_image()
    check_apart([args.output], [args.model, image, CITATION])
    model = open_model(args.model)
    cells = bioimageio.export(
        model.weights,
        model.settings,
        read_image(image),
        args.output,
        citation=yaml.safe_load(CITATION.read_text(encoding="utf-8")),
        card=model.card,
        pixel_size=model.record.seen.pixel_size if model.record and model.record.seen else None,
    )
    return f"{args.output}: a package of bioimage.io; its test image has {cells} cells"


def _first_image() -> Path:
    if found := sorted(IMAGES.glob("*")):
        return found[0]
    raise InputError(f"{IMAGES} has no image to make the package's test of; give one with --image")


if __name__ == "__main__":
    cli.run(main)
