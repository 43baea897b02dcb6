"""Run the benchmarks whose names are given, or all."""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path

import benchmarks

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
NAMES = sorted(
    module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name[0] != "_"
)

parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
parser.add_argument("names", nargs="*", metavar="name", help=f"one of: {', '.join(NAMES)}")
names = parser.parse_args().names or NAMES
for name in names:
    if name not in NAMES:
        parser.error(f"no benchmark {name!r}; there are: {', '.join(NAMES)}")
for name in names:
    result = importlib.import_module(f"benchmarks.{name}").run()
    print(result.line(name) if result else f"{name}: not run, no GPU here", flush=True)
