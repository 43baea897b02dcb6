"""Run the benchmarks whose names are given; without names, all but those that take long."""

import argparse
import importlib
import sys

from benchmarks import NAMED, NAMES, ROOT

sys.path.insert(0, str(ROOT / "src"))

parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
parser.add_argument(
    "names",
    nargs="*",
    metavar="name",
    help=f"one of: {', '.join(NAMES)} (long: {', '.join(NAMED)})",
)
parser.add_argument(
    "--small",
    action="store_true",
    help="use an input so small that the figures mean nothing, to see that everything works",
)
args = parser.parse_args()
for name in args.names:
    if name not in NAMES:
        parser.error(f"no benchmark {name!r}; there are: {', '.join(NAMES)}")
for name in args.names or [name for name in NAMES if name not in NAMED]:
    result = importlib.import_module(f"benchmarks.{name}").run(args.small)
    print(result.line(name) if result else f"{name}: not run, no GPU here", flush=True)
