"""Revision: the commit, or the experiment, that a result belongs to."""

import os
import subprocess
from pathlib import Path

DECISIVE = ("src", "params.yaml", "requirements.txt", "dvc.yaml")  # what decides a result
DIGITS = 12  # of the commit's hash


def revision_of(folder: Path) -> dict[str, str]:
    """Return the commit of a result, or its DVC experiment, and the date of the commit.

    It is the last commit that changed what decides a result, so that a later one, which only adds
    the result itself, gives the same page. Outside a git repository nothing is known.
    """

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments, "--", *DECISIVE]
        try:
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()
        except OSError:  # git is not installed
            return ""

    date, _, commit = git("log", "-1", "--format=%cs %H").partition(" ")
    if not commit:
        return {}
    code = f"commit {commit[:DIGITS]}"
    if name := os.environ.get("DVC_EXP_NAME"):  # DVC sets it for the stages of an experiment
        code = f"experiment {name}, based on {code}"
    elif git("status", "--porcelain"):
        code += ", with changes that are not committed"
    return {"date": date, "code": code}
