"""Score a model on prepared folders: pixels, cells, outlines, with intervals, tables, pictures."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli, devices
from cellular.base.params import Scoring, SegmentParams
from cellular.evaluating.evaluation import evaluate, told


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--test_dir",
        type=Path,
        nargs="+",
        required=True,
        help="prepared folder: <field>.<ext> beside <field>_masks.<png|tif>; several may be given",
    )
    parser.add_argument("--model_path", type=Path, required=True, help="weights to score")
    parser.add_argument(
        "--output_dir", type=Path, required=True,
        help="gets <name of test_dir>_eval.json, _fields.csv, _cells.csv, and curves/",
    )  # fmt: skip
    parser.add_argument(
        "--predictions_dir", type=Path, help="gets pred_<field>.png (default: output_dir/images)"
    )
    parser.add_argument(
        "--overlays_dir", type=Path, help="gets the overlays (default: output_dir/overlays)"
    )
    cli.add_seed(parser)
    cli.add_parameters(parser, SegmentParams)
    cli.add_parameters(parser, Scoring)
    parser.add_argument("--device", default="auto", help=f"{devices.HELP} (default: auto)")
    parser.add_argument("--force", action="store_true", help="replace an output that exists")
    args = parser.parse_args(argv)
    summaries = evaluate(
        args.test_dir,
        args.model_path,
        args.output_dir,
        cli.parameters(SegmentParams, args),
        cli.parameters(Scoring, args),
        predictions_dir=args.predictions_dir,
        overlays_dir=args.overlays_dir,
        seed=args.seed,
        device=devices.choose(args.device),
        force=args.force,
    )
    return "\n".join(
        f"{args.output_dir}/{name}_eval.json: {told(summary)}"
        for name, summary in summaries.items()
    )


if __name__ == "__main__":
    cli.run(main)
