"""Write the results of a run, both models side by side, as one page of HTML.

Example:
    python src/report.py --metrics_dir metrics --output metrics/report.html
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.fetching.sources import sources_of
from cellular.reporting.report import write_report
from parameters import load_params


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_models(parser, splits=["test", "valid", "train"])
    parser.add_argument(
        "--params",
        type=Path,
        default=Path("params.yaml"),
        help="the parameters of the run, which the page lists (default: params.yaml)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("metrics/report.html"),
        help="(default: metrics/report.html)",
    )
    parser.add_argument(
        "--example",
        type=Path,
        help="gets a copy of one picture: the worst field of the first split",
    )
    cli.add_force(parser)
    args = parser.parse_args(argv)
    params = load_params(args.params)
    page = write_report(
        args.metrics_dir,
        tuple(args.models),
        args.splits,
        params.model_dump(),
        sources_of(params.dataset, params.train.model_type),
        args.output,
        example=args.example,
        seed=params.eval.seed,
        force=args.force,
    )
    return f"{page}: {page.stat().st_size / 1e6:.1f} MB, opens in any browser"


if __name__ == "__main__":
    cli.run(main)
