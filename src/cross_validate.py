"""Cross-validate a recipe: leave out one group of fields after the other; print scores by fold.

Each fold and seed is a DVC experiment. Those that are finished are not run again, so a command that
was stopped goes on when it is given again.

Example:
    python src/cross_validate.py --by timepoint --profile quick
"""

import typing
from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.experiments.crossvalidation import check_free, cross_validate
from cellular.experiments.profiles import add_flags, add_workers, changes
from cellular.fetching.remotes import ROOT
from cellular.imaging.fields import Group
from parameters import Params

HOME = Path("experiments")


def main(argv: Sequence[str] | None = None) -> str:
    """Run the folds that are not finished, and return the tables."""
    parser = cli.Parser(__doc__)
    text = "what is left out as a whole, with all its fields (default: well)"
    parser.add_argument("--by", choices=typing.get_args(Group), default="well", help=text)
    text = "seeds of the training; every fold is run with each (default: 0)"
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help=text)
    add_flags(parser)
    text = "folder in experiments/ for the results (default: cv-<by>, or cv-<profile>-<by>)"
    parser.add_argument("--name", help=text)
    text = "another such folder: a recipe to compare with, fold by fold"
    parser.add_argument("--against", metavar="NAME", help=text)
    add_workers(parser, "folds")
    parser.force()
    args = parser.parse_args(argv)
    check_free(changes(ROOT, None, args.set_param))
    name = args.name or "-".join(filter(None, ("cv", args.profile, args.by)))
    if args.against == name:
        parser.error(f"--against {name}: the results of this run go there; give another --name")
    return cross_validate(
        ROOT,
        HOME / name,
        Params,
        changes(ROOT, args.profile, args.set_param),
        by=args.by,
        seeds=args.seeds,
        against=HOME / args.against / "folds.json" if args.against else None,
        workers=args.workers,
        force=args.force,
    )


if __name__ == "__main__":
    cli.run(main)
