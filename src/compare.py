"""Compare two models on the same fields: tables with the difference and its 95 % interval.

Example:
    python src/compare.py --metrics_dir metrics --models pretrained finetuned --splits test
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.base.files import check_new, whole, write_json
from cellular.reporting.comparison import as_json, compare, markdown
from cellular.scoring.results import read_json, read_scores
from cellular.scoring.summary import summary_of


def main(argv: Sequence[str] | None = None) -> str:
    """Return the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_models(parser, splits=["test", "valid"])
    cli.add_seed(parser, "the resamples of the intervals")
    parser.add_argument("--output", type=Path, help="gets all differences, as JSON")
    parser.add_argument("--table", type=Path, help="gets what is printed, as Markdown")
    parser.add_argument(
        "--summary",
        type=Path,
        help="gets the few numbers by which DVC compares runs, as JSON; needs train.json in "
        "metrics_dir, and the models pretrained and finetuned",
    )
    cli.add_force(parser)
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
