"""Show the scores of two models side by side, as Markdown tables."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular import cli
from cellular.comparison import markdown


def main(argv: Sequence[str] | None = None) -> str:
    """Return the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--metrics_dir", type=Path, default=Path("metrics"), help="(default: metrics)"
    )
    parser.add_argument(
        "--models", nargs=2, default=["pretrained", "finetuned"], metavar="MODEL",
        help="the two folders in it to compare (default: pretrained finetuned)",
    )  # fmt: skip
    parser.add_argument(
        "--splits", nargs="+", default=["test", "valid"], metavar="SPLIT",
        help="(default: test valid)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    return markdown(args.metrics_dir, tuple(args.models), tuple(args.splits))


if __name__ == "__main__":
    cli.run(main)
