"""Compare two models on the same fields: tables with the difference and its 95 % interval.

Example:
    python src/compare.py --metrics_dir metrics --models pretrained finetuned --splits test
"""

from collections.abc import Sequence

from cellular.base import cli
from cellular.base.files import check_new, whole, write_json
from cellular.reporting.comparison import as_json, compare, markdown
from cellular.scoring.results import read_json, read_scores
from cellular.scoring.summary import summary_of


def main(argv: Sequence[str] | None = None) -> str:
    """Return the tables."""
    parser = cli.Parser(__doc__)
    parser.models(splits="test valid")
    parser.path("--output", help="file for all differences, as JSON")
    parser.path("--table", help="file for the printed text, as Markdown")
    parser.path(
        "--summary",
        help="file for the few numbers by which DVC compares runs, as JSON; needs train.json in "
        "metrics_dir, and the models pretrained and finetuned",
    )
    parser.seed("the resamples of the intervals")
    parser.force()
    args = parser.parse_args(argv)
    for path in filter(None, (args.output, args.table, args.summary)):
        check_new(path, args.force)
    comparisons = compare(args.metrics_dir, tuple(args.models), args.splits, args.seed)
    tables = markdown(comparisons)
    if args.output is not None:
        write_json(args.output, as_json(comparisons))
    if args.table is not None:
        with whole(args.table) as staging:
            staging.write_text(f"{tables}\n", encoding="utf-8")
    if args.summary is not None:
        scores = {
            model: read_scores(args.metrics_dir / model, args.splits) for model in args.models
        }
        training = read_json(args.metrics_dir / "train.json")
        write_json(args.summary, summary_of(scores, training.get("best_valid_loss")))
    return tables


if __name__ == "__main__":
    cli.run(main)
