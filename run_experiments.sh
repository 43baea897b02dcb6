#!/bin/sh
# The paper's experiments in one command: sh run_experiments.sh [path/to/masks] [output-path]
# Calls src/run_experiments.py, with the Python of .venv (made if need be) unless this one will do.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
needed='import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("cellpose", "dvc"))))'
if python -c "$needed" >/dev/null 2>&1; then
    python=python
else
    make --silent -C "$here" venv >&2
    python=$here/.venv/bin/python
fi
exec "$python" "$here/src/run_experiments.py" "$@"
