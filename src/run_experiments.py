"""Run the paper's experiments; print the scores of each on all splits as one table.

Each experiment scores published weights, fine-tunes them, and scores the result.
"""

from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.experiments.grid import markdown, run_grid
from cellular.fetching.remotes import ROOT
from parameters import Params


def main(argv: Sequence[str] | None = None) -> str:
    """Run the experiments that are not finished, and return the table."""
    parser = cli.Parser(__doc__, prog="run_experiments.sh")
    parser.path(
        "masks",
        nargs="?",
        help="your own folder of masks, or of images and masks; the pretrained model is "
        "scored at their diameter (default: the tracked data set)",
    )
    text = "folder for paper_table.md, .csv and .json (default: experiments/<profile>)"
    parser.path("output", nargs="?", help=text)
    parser.add_argument(
        "--profile",
        default="paper",
        help="file in conf/ with what differs from params.yaml: paper (needs a GPU for hours), "
        "sample (minutes), quick (default: paper)",
    )
    text = "weights to start from (default: cyto cyto2; on the sample scellseg scratch)"
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME", help=text)
    args = parser.parse_args(argv)
    output = args.output or Path("experiments") / args.profile
    rows = run_grid(ROOT, args.profile, output, Params, weights=args.weights, data=args.masks)
    return markdown(rows)


if __name__ == "__main__":
    cli.run(main)
