"""Compare two models on the same fields: tables with the difference and its 95 % interval.

Example:
    python src/compare.py --metrics_dir metrics --models pretrained finetuned --splits test
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from cellular.base import cli
from cellular.base.files import check_apart, check_new, together, write_json
from cellular.reporting.comparison import as_json, compare, markdown
from cellular.reporting.scored import scored_as
from cellular.scoring.results import files_of, read_json, read_scores
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
    parser.path("--readout", help="numbers of src/measure.py, for the summary")
    parser.seed("the resamples of the intervals, and the signs of the test")
    parser.unit()
    parser.force()
    args = parser.parse_args(argv)
    models = [scored_as(model, args.metrics_dir, args.splits) for model in args.models]
    outputs = list(filter(None, (args.output, args.table, args.summary)))
    inputs = [args.metrics_dir / "train.json", *filter(None, [args.readout])]
    for model, split in product(models, args.splits):
        inputs += files_of(args.metrics_dir / model, split).values()
    check_apart(outputs, inputs)
    check_new(*outputs, force=args.force)
    comparisons = compare(
        args.metrics_dir, (models[0], models[1]), args.splits, args.seed, args.unit
    )
    tables = markdown(comparisons)
    contents: dict[Path, str | dict] = {}
    if args.output is not None:
        contents[args.output] = as_json(comparisons)
    if args.table is not None:
        contents[args.table] = f"{tables}\n"
    if args.summary is not None:
        scores = {model: read_scores(args.metrics_dir / model, args.splits) for model in models}
        scores["readout"] = read_json(args.readout) if args.readout else {}
        training = read_json(args.metrics_dir / "train.json")
        contents[args.summary] = summary_of(scores, training.get("best_valid_loss"))
    if contents:
        with together(*contents) as stagings:
            for staging, content in zip(stagings, contents.values(), strict=True):
                if isinstance(content, str):
                    staging.write_text(content, encoding="utf-8")
                else:
                    write_json(staging, content)
    return tables


if __name__ == "__main__":
    cli.run(main)
