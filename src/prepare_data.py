"""Turn annotated masks into label maps by class and split, beside their images.

Example:
    python src/prepare_data.py -i masks -c images -o prepared -v _valid -t _test
"""

from collections.abc import Sequence

from cellular.base import cli, devices
from cellular.preparing.params import PrepareParams
from cellular.preparing.preparation import ALL, process_masks


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    args = _parser().parse_args(argv)
    params = cli.parameters(PrepareParams, args)
    report = process_masks(
        args.input_path,
        args.output_dir,
        args.corresponding_files_dir,
        params,
        class_name=args.class_name,
        channels=args.channels,
        report_path=args.report,
        flows_dir=args.flows_dir,
        device=devices.choose(args.device),
        skip_unannotated=args.skip_unannotated,
        force=args.force,
    )
    counts = (
        f"{split} {n['fields']} fields, {n['cells']:,} cells"
        for split, n in report["splits"][ALL].items()
    )
    return f"{args.output_dir}: {'; '.join(counts)}"


def _parser() -> cli.Parser:
    parser = cli.Parser(
        __doc__,
        epilog="Masks:  <input_path>/<field>/<class>/<any name>.png, one object a file,\n"
        "        or <input_path>/<field>.tif, one label map a field.\n"
        "Images: <corresponding_files_dir>/<field>.<png|jpg|tif>.\n"
        "Result: <output_dir>/<class>/<train|valid|test>/<field>_masks.<format> beside the image,\n"
        "        for each class and for 'all'.",
    )
    parser.path("-i", "--input_path", required=True, help="folder of masks")
    parser.path("-o", "--output_dir", required=True, help="folder to make")
    parser.path("-c", "--corresponding_files_dir", required=True, help="folder of images")
    parser.path(
        "--report",
        help="JSON file for the number of cells in each split, and the cells that were "
        "dropped (default: in output_dir)",
    )
    text = "leave out images that have no masks"
    parser.add_argument("--skip_unannotated", action="store_true", help=text)
    parser.path(
        "--flows_dir",
        help="folder to make with the flows that train.py needs, <flows_dir>/<train|valid|test>; "
        "they are computed once for all training runs",
    )
    text = "class whose flows are computed (default: all, every class but the excluded)"
    parser.add_argument("--class_name", default=ALL, help=text)
    text = "channels that a model is given, to check that all images have them; may be given again"
    parser.add_argument(
        "--channels", nargs=2, type=int, choices=range(4), action="append", default=[], help=text
    )
    parser.parameters(PrepareParams, val_pattern="v", test_pattern="t", formats="f", exclude="e")
    parser.device()
    parser.force()
    return parser


if __name__ == "__main__":
    cli.run(main)
