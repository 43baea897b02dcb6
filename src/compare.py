"""Compare two models on the same fields: tables with the difference and its 95 % interval."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.base.files import check_new, whole, write_json
from cellular.reporting.comparison import as_json, compare, markdown


def main(argv: Sequence[str] | None = None) -> str:
    """Return the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    cli.add_models(parser, splits=["test", "valid"])
    cli.add_seed(parser)
    parser.add_argument("--output", type=Path, help="gets all differences, as JSON")
    parser.add_argument("--table", type=Path, help="gets what is printed, as Markdown")
    parser.add_argument("--force", action="store_true", help="replace an output that exists")
    args = parser.parse_args(argv)
    for path in filter(None, (args.output, args.table)):
        check_new(path, args.force)
    comparisons = compare(args.metrics_dir, tuple(args.models), args.splits, args.seed)
    if args.output is not None:
        write_json(args.output, as_json(comparisons))
    told = markdown(comparisons)
    if args.table is not None:
        with whole(args.table) as staging:
            staging.write_text(f"{told}\n", encoding="utf-8")
    return told


if __name__ == "__main__":
    cli.run(main)
