"""A copy of this repository, to run DVC's commands in."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from helpers.annotations import ROOT


def environment() -> dict[str, str]:
    """Return this environment, with the commands of this Python first."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


class Repository:
    """A git repository with the files of this one as they are now."""

    def __init__(self, folder: Path):
        self.folder = folder
        listed = self.git("ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT)
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "test")
        self.git("config", "user.email", "test@example.org")
        self.commit("copy")

    def run(self, *command: str, cwd: Path | None = None, code: int = 0) -> str:
        done = subprocess.run(
            command, cwd=cwd or self.folder, env=environment(), capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        self.errors = done.stderr
        return done.stdout

    def git(self, *arguments: str, cwd: Path | None = None) -> str:
        return self.run("git", *arguments, cwd=cwd)

    def dvc(self, *arguments: str, code: int = 0) -> str:
        return self.run("dvc", *arguments, code=code)

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def change(self, section: str, **values: object) -> None:
        """Change parameters of a section."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        params[section] |= values
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def json(self, name: str) -> dict:
        return json.loads((self.folder / name).read_text())
