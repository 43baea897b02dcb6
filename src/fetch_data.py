"""Fetch a data set of the catalogue, verify it, and lay it out for prepare_data.py or eval.py.

Example:
    python src/fetch_data.py --dataset sample --output_dir data/raw
"""

from collections.abc import Sequence

from cellular.base import cli
from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.params import DataParams
from cellular.fetching.sources import catalogue


def main(argv: Sequence[str] | None = None) -> str:
    """Run the stage and return its line of result."""
    known = [f"  {name}: {source.what}" for name, source in catalogue().datasets.items()]
    parser = cli.Parser(__doc__, epilog="\n".join(["data sets:", *known]))
    text = "name in the catalogue (default: sample)"
    parser.add_argument("--dataset", default="sample", help=text)
    parser.path("--output_dir", help="folder to make", default="data/raw")
    parser.parameters(DataParams)
    parser.force()
    args = parser.parse_args(argv)
    data = cli.parameters(DataParams, args)
    counts = fetch_dataset(args.dataset, args.output_dir, data, force=args.force)
    return f"{args.output_dir}: " + ", ".join(f"{n} {folder}" for folder, n in counts.items())


if __name__ == "__main__":
    cli.run(main)
