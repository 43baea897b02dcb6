"""Fetch a data set of the catalogue, verify it, and lay it out for prepare_data.py."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular import cli
from cellular.datasets import fetch_dataset


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--dataset", default="sample", help="name in the catalogue (default: sample)"
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("data/raw"), help="(default: data/raw)"
    )
    parser.add_argument("--force", action="store_true", help="replace an output that exists")
    args = parser.parse_args(argv)
    counts = fetch_dataset(args.dataset, args.output_dir, force=args.force)
    return f"{args.output_dir}: " + ", ".join(f"{n} {folder}" for folder, n in counts.items())


if __name__ == "__main__":
    cli.run(main)
