"""Fetch pretrained weights, verify them, and write them as Cellpose opens them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.fetching.pretrained import fetch_weights


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model_type",
        default="scellseg",
        help="name in the catalogue, scratch for random weights, or a path (default: scellseg)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("models/pretrained"),
        help="(default: models/pretrained)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random weights (default: 0)")
    parser.add_argument("--force", action="store_true", help="replace an output that exists")
    args = parser.parse_args(argv)
    diameter = fetch_weights(args.model_type, args.output, seed=args.seed, force=args.force)
    return f"{args.output}: {args.model_type}, cells of {diameter:g} pixels"


if __name__ == "__main__":
    cli.run(main)
