"""Fetch pretrained weights, verify them, and write them as Cellpose opens them.

Example:
    python src/fetch_weights.py --model_type scellseg --output models/pretrained
"""

from collections.abc import Sequence

from cellular.base import cli
from cellular.fetching.params import WeightsParams
from cellular.fetching.pretrained import fetch_weights


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    parser = cli.Parser(__doc__)
    parser.path("--output", help="file to make", default="models/pretrained")
    parser.parameters(WeightsParams)
    parser.seed("random weights")
    parser.force()
    args = parser.parse_args(argv)
    model_type = cli.parameters(WeightsParams, args).model_type
    diameter = fetch_weights(model_type, args.output, seed=args.seed, force=args.force)
    return f"{args.output}: {model_type}, made for cells of {diameter:g} pixels"


if __name__ == "__main__":
    cli.run(main)
