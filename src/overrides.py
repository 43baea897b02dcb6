"""Print a profile, a file of parameters that differ from params.yaml, as flags of dvc exp run.

Example:
    dvc exp run $(python src/overrides.py conf/quick.yaml)
"""

from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.base.params import validate
from cellular.experiments.profiles import flags, load_profile, overridden
from parameters import Params


def main(argv: Sequence[str] | None = None) -> str:
    """Return the flags of a profile that is valid together with params.yaml."""
    parser = cli.Parser(__doc__)
    parser.path("profile", help="the profile, a file in conf/")
    args = parser.parse_args(argv)
    profile = load_profile(args.profile)
    validate(Params, overridden(Path("params.yaml"), profile, args.profile), str(args.profile))
    return " ".join(flags(profile))


if __name__ == "__main__":
    cli.run(main)
