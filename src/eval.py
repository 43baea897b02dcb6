r"""Score a model on prepared folders: pixels, cells and outlines, with intervals and pictures.

Example:
    python src/eval.py --test_dir prepared/all/test --model_path experiments/mine/models/mine \
        --output_dir experiments/mine/scores
"""

from collections.abc import Sequence

from cellular.base import cli, devices
from cellular.evaluating.evaluation import evaluate, one_line
from cellular.evaluating.params import Scoring, SegmentParams
from cellular.models.folders import open_model


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    args = _parser().parse_args(argv)
    model = open_model(args.model_path, given=vars(args))
    scores = evaluate(
        args.test_dir,
        model.weights,
        args.output_dir,
        cli.parameters(SegmentParams, args, model.defaults),
        cli.parameters(Scoring, args),
        annotated_dir=args.annotated_dir,
        predictions_dir=args.predictions_dir,
        overlays_dir=args.overlays_dir,
        summary=args.summary,
        seed=args.seed,
        device=devices.choose(args.device),
        force=args.force,
    )
    return "\n".join(
        f"{args.output_dir}/{name}_eval.json: {one_line(split)}" for name, split in scores.items()
    )


def _parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.path(
        "--test_dir",
        nargs="+",
        required=True,
        help="prepared folder: <field>.<ext> beside <field>_masks.<png|tif>, or beside boxes in "
        "YOLO's format, <field>.txt; several may be given",
    )
    parser.model("--model_path", required=True)
    parser.path(
        "--annotated_dir",
        help="prepared folder whose cells have the diameter that the model is to find, for "
        "--diameter annotated and for a warning (default: the first test_dir)",
    )
    text = "folder for <name of test_dir>_eval.json, _fields.csv, _cells.csv, and curves/"
    parser.path("--output_dir", required=True, help=text)
    parser.path(
        "--predictions_dir", help="folder for pred_<field>.png (default: output_dir/images)"
    )
    parser.path("--overlays_dir", help="folder for the overlays (default: output_dir/overlays)")
    parser.path(
        "--summary",
        help="file for the summary of a run, with the numbers of this model alone: the other "
        "model's belong to an earlier run until compare.py writes both",
    )
    parser.parameters(SegmentParams, Scoring)
    parser.seed("the resamples of the intervals")
    parser.device()
    parser.force()
    return parser


if __name__ == "__main__":
    cli.run(main)
