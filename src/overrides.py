"""Print a profile as flags: dvc exp run $(python src/overrides.py conf/quick.yaml)"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellular.base import cli
from cellular.experiments.profiles import flags, load_profile, overridden


def main(argv: Sequence[str] | None = None) -> str:
    """Return the flags of a profile that is valid together with params.yaml."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", type=Path, help="a file in conf/")
    args = parser.parse_args(argv)
    overrides = load_profile(args.profile)
    overridden(Path("params.yaml"), overrides, str(args.profile))
    return " ".join(flags(overrides))


if __name__ == "__main__":
    cli.run(main)
