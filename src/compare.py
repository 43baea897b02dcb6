"""Compare two models, or the fine-tuned models of two experiments, on the same fields.

It prints tables with the difference and its 95 % interval. Of experiments it also says which
parameters differ and which cells only one of them finds, and writes a page with pictures.

Examples:
    python src/compare.py --metrics_dir metrics --models pretrained finetuned --splits test
    python src/compare.py --experiments HEAD mirrored
"""

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from cellular.base import cli
from cellular.base.files import check_apart, check_new, together, write_json
from cellular.reporting.against import compare_experiments
from cellular.reporting.comparison import as_json, compare, markdown
from cellular.reporting.scored import scored_as
from cellular.scoring.results import files_of, read_json, read_scores
from cellular.scoring.summary import summary_of
from cellular.scoring.uncertainty import SITE

OF_MODELS = ("metrics_dir", "models", "output", "table", "summary", "readout")
OF_EXPERIMENTS = ("output_dir",)


def main(argv: Sequence[str] | None = None) -> str:
    """Return the tables."""
    parser = cli.Parser(__doc__)
    text = (
        "compare two of DVC's experiments, commits, branches or tags (workspace: the files here); "
        "intervals by the eval.unit of the first, unless --unit is given"
    )
    parser.add_argument("--experiments", nargs=2, metavar="NAME", help=text)
    text = (
        "folder for the page of two experiments, and its tables (default: experiments/A-against-B)"
    )
    parser.path("--output_dir", help=text)
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
    parser.set_defaults(unit=None)  # experiments have their own, in params.yaml
    parser.force()
    args = parser.parse_args(argv)
    foreign = OF_MODELS if args.experiments else OF_EXPERIMENTS
    # Identity tells a value that was given from the default, even if both are equal.
    given = [name for name in foreign if getattr(args, name) is not parser.get_default(name)]
    if given:
        other = "" if args.experiments else "out"
        parser.error(f"--{given[0]} has no meaning with{other} --experiments; leave it out")
    if args.experiments:
        return _experiments(args)
    return _models(args)


def _experiments(args: argparse.Namespace) -> str:
    """Compare two experiments; return the tables and the path of the page."""
    text, page = compare_experiments(
        tuple(args.experiments),
        args.splits,
        args.output_dir,
        seed=args.seed,
        unit=args.unit,
        force=args.force,
    )
    return f"{text}\n\n{page}"


def _models(args: argparse.Namespace) -> str:
    """Compare two models; write what is asked for, and return the tables."""
    models = [scored_as(model, args.metrics_dir, args.splits) for model in args.models]
    outputs = list(filter(None, (args.output, args.table, args.summary)))
    inputs = [args.metrics_dir / "train.json", *filter(None, [args.readout])]
    for model, split in product(models, args.splits):
        inputs += files_of(args.metrics_dir / model, split).values()
    check_apart(outputs, inputs)
    check_new(*outputs, force=args.force)
    comparisons = compare(
        args.metrics_dir, (models[0], models[1]), args.splits, args.seed, args.unit or SITE
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
