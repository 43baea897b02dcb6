r"""Measure autophagy in every cell: brightness and puncta of both channels, wells, conditions.

Example:
    python src/measure.py my_channels --labels segmented --red 1 --green 2 --pixel_size 0.17
"""

from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cellular.base import cli
from cellular.base.errors import InputError
from cellular.base.files import check_apart, check_new
from cellular.fetching.params import DataParams
from cellular.fetching.sources import catalogue
from cellular.imaging.fields import Pair, load_pairs
from cellular.measuring.channels import UnknownChannels, find_channels, find_labels
from cellular.measuring.measurement import ANNOTATED, Outlines, measure_fields
from cellular.measuring.params import MeasureParams
from cellular.measuring.results import summary_of, write_measurement, write_reason
from cellular.segmenting.sources import find


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not args.labels and not args.annotated:
        parser.error("give label maps: --labels, --annotated, or both")
    params = cli.parameters(MeasureParams, args)
    folders = [*args.annotated, *(folder for _, folder in args.labels)]
    images = _images(args.images)
    outputs = args.output, summary_of(args.output)
    check_apart(outputs, [images, *folders])
    check_new(*outputs, force=args.force)
    source = catalogue().datasets.get(args.dataset or "")
    known = source.pixel_size if source else None
    pixel_size = cli.parameters(DataParams, args).pixel_size or known
    try:
        channels = find_channels(find([images]), params)
        outlines = _outlines(args.annotated, args.labels, args.judge_all)
        found = measure_fields(channels, outlines, params, pixel_size=pixel_size, seed=args.seed)
    except UnknownChannels as error:
        if not args.optional:
            raise
        write_reason(args.output, str(error))
        return f"{args.output}: nothing to measure: {error}"
    write_measurement(args.output, found, channels, outlines, params, args.seed)
    return f"{args.output}: {_line(found.tables)}"


def _images(folder: Path) -> Path:
    """Return where the channels of a folder are, which may be the output of src/fetch_data.py."""
    inside = [folder / name for name in ("channels", "images")]
    return next(filter(Path.is_dir, inside), folder)


def _outlines(
    annotated: Sequence[Path], labels: Sequence[tuple[str, Path]], judge_all: bool
) -> Outlines:
    pairs = [load_pairs(folder) for folder in annotated]
    by_field: dict[str, Pair] = {pair.field: pair for group in pairs for pair in group}
    maps = {ANNOTATED: {field: pair.labels for field, pair in by_field.items()}} if pairs else {}
    for source, folder in labels:
        if source in maps:
            raise InputError(f"--labels: two sources named {source}; give <name>=<folder>")
        maps[source] = find_labels(folder)
    judged = pairs if judge_all else pairs[:1]
    split = "all folders" if judge_all else annotated[0].resolve().name if annotated else ""
    return Outlines(maps, by_field, [pair.field for group in judged for pair in group], split)


def _line(tables: dict[str, pd.DataFrame]) -> str:
    """Return the numbers of each source in one line."""
    cells, fields = tables["cells"], tables["fields"]["field"].nunique()
    shown = [
        f"{source}: {len(rows):,} cells, {rows['red_puncta'].mean():.1f} red puncta a cell"
        for source, rows in cells.groupby("source", sort=False)
    ]
    flagged = tables["fields"].loc[tables["fields"]["flags"] != "", "field"].nunique()
    more = [f"{flagged} with flags in fields.csv"] if flagged else []
    return "; ".join([f"{fields} field{'s' * (fields != 1)}", *shown, *more])


def _labels(text: str) -> tuple[str, Path]:
    name, found, folder = text.rpartition("=")
    if found and (not name.isidentifier() or name == ANNOTATED):
        raise ArgumentTypeError(
            f"expected <name>=<folder> with a name of letters, digits and _ that is not "
            f"{ANNOTATED}, found {text!r}"
        )
    return name or "cells", Path(folder)


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    text = (
        "folder of images with both channels, or of a file for each channel, <field>_w1.TIF; or "
        "the output of src/fetch_data.py"
    )
    parser.path("images", help=text)
    text = (
        "folder of label maps, <field>.tif or .png, or the output of src/segment.py; several, each "
        "with the name that it has in the results: finetuned=segmented"
    )
    options: dict[str, Any] = {"nargs": "+", "default": [], "help": text}
    parser.add_argument("--labels", type=_labels, metavar="[NAME=]FOLDER", **options)
    text = (
        "prepared folders of annotated fields, with which all label maps are compared; their "
        "errors are judged on the fields of the first of these folders"
    )
    parser.path("--annotated", nargs="+", help=text)
    text = "judge errors on all these folders, as for the label maps of a cross-validation"
    parser.add_argument("--judge_all", action="store_true", help=text)
    text = "folder for all tables; the numbers go to <output>.json"
    parser.path("--output", help=text, default="measured")
    text = "edge of a pixel in µm, in place of what the files say"
    parser.add_argument("--pixel_size", default=SUPPRESS, metavar="NUMBER", help=text)
    text = "data set of the catalogue, which tells the pixel size"
    parser.add_argument("--dataset", metavar="NAME", help=text)
    text = "if channels or pixel size are not known, write why, and end without an error"
    parser.add_argument("--optional", action="store_true", help=text)
    parser.seed("which cells are merged to see what that changes")
    parser.parameters(MeasureParams)
    parser.force()
    parser.set_defaults(annotated=[])
    return parser


if __name__ == "__main__":
    cli.run(main)
