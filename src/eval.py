r"""Score a model on prepared folders: pixels, cells and outlines, with intervals and pictures.

Example:
    python src/eval.py --test_dir prepared/all/test --model_path experiments/mine/models/mine \
        --output_dir experiments/mine/scores
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli, devices
from cellular.base.files import write_json
from cellular.evaluating.evaluation import evaluate, one_line
from cellular.evaluating.params import Scoring, SegmentParams
from cellular.scoring.summary import summary_of


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    args = _parser().parse_args(argv)
    scores = evaluate(
        args.test_dir,
        args.model_path,
        args.output_dir,
        cli.parameters(SegmentParams, args).settings(),
        cli.parameters(Scoring, args),
        predictions_dir=args.predictions_dir,
        overlays_dir=args.overlays_dir,
        seed=args.seed,
        device=devices.choose(args.device),
        force=args.force,
    )
    if args.summary is not None:
        write_json(args.summary, summary_of({args.output_dir.name: scores}))
    return "\n".join(
        f"{args.output_dir}/{name}_eval.json: {one_line(split)}" for name, split in scores.items()
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--test_dir",
        type=Path,
        nargs="+",
        required=True,
        help="prepared folder: <field>.<ext> beside <field>_masks.<png|tif>; several may be given",
    )
    parser.add_argument("--model_path", type=Path, required=True, help="weights to score")
    parser.add_argument(
        "--output_dir",
        type=Path,
        required=True,
        help="gets <name of test_dir>_eval.json, _fields.csv, _cells.csv, and curves/",
    )
    parser.add_argument(
        "--predictions_dir", type=Path, help="gets pred_<field>.png (default: output_dir/images)"
    )
    parser.add_argument(
        "--overlays_dir", type=Path, help="gets the overlays (default: output_dir/overlays)"
    )
    parser.add_argument(
        "--summary",
        type=Path,
        help="file of the summary of a run, which gets the numbers of this model alone: those of "
        "the other model belong to an earlier run, until compare.py writes both",
    )
    cli.add_seed(parser, "the resamples of the intervals")
    cli.add_parameters(parser, SegmentParams, Scoring)
    cli.add_device(parser)
    cli.add_force(parser)
    return parser


if __name__ == "__main__":
    cli.run(main)
