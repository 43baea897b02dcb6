"""Run one DVC experiment with a profile or single values; your files stay as they are.

Example:
    python src/experiment.py --profile quick -n quick
"""

from collections.abc import Sequence

from cellular.base import cli
from cellular.base.errors import InputError
from cellular.experiments.profiles import add_flags, changes
from cellular.experiments.runner import Experiment, commit_of, identified, run_all
from cellular.fetching.remotes import ROOT
from parameters import Params


def main(argv: Sequence[str] | None = None) -> str:
    """Run the experiment, and return how to go on."""
    parser = cli.Parser(__doc__)
    parser.add_argument("targets", nargs="*", help="stages to run (default: the whole pipeline)")
    add_flags(parser)
    text = "name of the experiment (default: profile, stages, and a hash of parameters and code)"
    parser.add_argument("-n", "--name", help=text)
    args = parser.parse_args(argv)
    overrides = changes(ROOT, args.profile, args.set_param)
    where = ROOT / "conf" / f"{args.profile}.yaml" if args.profile else ROOT / "params.yaml"
    prefix = "-".join([args.profile or "experiment", *args.targets])
    identity = identified(ROOT, prefix, overrides, Params, where)
    name = args.name or identity
    if args.name and commit_of(ROOT, name):
        raise InputError(
            f"{name}: there is an experiment of this name; give another, or remove it with "
            f"`dvc exp remove {name}`"
        )
    run_all(ROOT, [Experiment(name, overrides, tuple(args.targets))])
    return f"finished: dvc metrics diff HEAD {name} compares it, dvc exp apply {name} takes it over"


if __name__ == "__main__":
    cli.run(main)
