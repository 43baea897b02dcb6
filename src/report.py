"""Write the results of a run, both models side by side, as one page of HTML."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.base.params import load_params
from cellular.reporting.report import write_report


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = argparse.ArgumentParser(description=__doc__)
    cli.add_models(parser, splits=["test", "valid", "train"])
    parser.add_argument(
        "--params", type=Path, default=Path("params.yaml"),
        help="the parameters of the run, which the page lists (default: params.yaml)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("metrics/report.html"),
        help="(default: metrics/report.html)",
    )  # fmt: skip
    parser.add_argument(
        "--example", type=Path, help="gets a copy of one picture: the first split's worst field"
    )
    parser.add_argument("--force", action="store_true", help="replace an output that exists")
    args = parser.parse_args(argv)
    page = write_report(
        args.metrics_dir,
        tuple(args.models),
        args.splits,
        load_params(args.params),
        args.output,
        example=args.example,
        force=args.force,
    )
    return f"{page}: {page.stat().st_size / 1e6:.1f} MB, opens in any browser"


if __name__ == "__main__":
    cli.run(main)
