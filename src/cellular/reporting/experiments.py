"""Experiments: what DVC has of an experiment, a commit, a branch, a tag or the working folder."""

import difflib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cellular.base.errors import InputError
from cellular.base.params import flat, parse_params
from cellular.imaging.fields import MASKS
from cellular.scoring.results import files_of, read_results
from cellular.scoring.scores import FieldResult

WORKSPACE = "workspace"  # DVC's word for the working folder
SCORES = Path("metrics/finetuned")
STAGE = "evaluate@finetuned"  # in dvc.yaml: writes SCORES and PREDICTIONS
CHECK = "check_params"  # the stage that depends on all parameters, and decides no score
LOCK = Path("dvc.lock")
PREDICTIONS = Path("data/predictions/finetuned")
PREPARED = Path("data/prepared")
TRAINING = Path("metrics/train.json")
SUGGESTED = 5  # names that an error offers in place of one that is unknown
SECONDS = 2  # that files may take to come before a progress bar shows


@dataclass(frozen=True)
class Experiment:
    """An experiment, and the folder that the files which are read of it are copied to."""

    name: str
    commit: str | None  # None: the working folder
    files: Any  # dvc.api.DVCFileSystem
    folder: Path

    @cached_property
    def params(self) -> dict[str, Any]:
        """The content of params.yaml."""
        where = f"params.yaml of {self.name}"
        return parse_params(self.take([Path("params.yaml")])[0].read_bytes(), where)

    @cached_property
    def stages(self) -> dict[str, Any]:
        """The stages that the scores come from, by name, as dvc.lock recorded them.

        Raises
        ------
        InputError
            If the scores are not those of the parameters, or of the weights: another run left them.
        """
        recorded = parse_params(self.take([LOCK])[0].read_bytes(), f"{LOCK} of {self.name}")
        stages = recorded.get("stages", {})
        made = {out["path"]: (name, out) for name, of in stages.items() for out in of["outs"]}
        now = dict(flat(self.params))
        found: dict[str, Any] = {}
        waiting = [STAGE]
        while waiting:
            name = waiting.pop()
            if name not in stages:
                raise self._not_run(f"{LOCK} does not know {name}")
            if name in found or name == CHECK:
                continue
            found[name] = stages[name]
            used = flat(stages[name].get("params", {}).get("params.yaml", {}))
            if changed := [key for key, value in used if now.get(key) != value]:
                raise self._not_run(f"{', '.join(changed)} changed after {name} was run")
            for dep in stages[name].get("deps", []):
                _, out = made.get(dep["path"], ("", dep))
                if out.get("md5") != dep.get("md5"):
                    raise self._not_run(f"{dep['path']} changed after {name} was run")
                folders = [dep["path"], *map(str, Path(dep["path"]).parents)]  # of outputs
                waiting += [made[folder][0] for folder in folders if folder in made]
        return found

    @property
    def code(self) -> dict[str, str]:
        """The hashes of the code, and of the versions of packages, that the scores come from."""
        deps = [dep for stage in self.stages.values() for dep in stage.get("deps", [])]
        return {
            dep["path"]: dep.get("md5", "")
            for dep in deps
            if dep["path"].startswith(("src/", "requirements"))
        }

    @property
    def prepared(self) -> Path:
        """The folder of the prepared splits."""
        return PREPARED / str(self.params.get("class_name"))

    def results(self, split: str) -> list[FieldResult]:
        """Return the scores of the fine-tuned model on a split; `InputError` without them."""
        self.take(list(files_of(SCORES, split).values()))
        return read_results(self.folder / SCORES, split)

    def field_folder(self, split: str, field: str) -> Path:
        """Return a copy of a prepared folder that has the image and the label map of a field."""
        from dvc_data.index import DataIndexError

        folder = self.prepared / split
        try:
            listed = [Path(path) for path in self.files.ls(folder.as_posix(), detail=False)]
        except (DataIndexError, OSError) as error:
            raise self._missing(folder) from error
        self.take([path for path in listed if path.stem in (field, f"{field}{MASKS}")])
        return self.folder / folder

    def prediction(self, field: str) -> Path:
        """Return a copy of the label map that the fine-tuned model predicted for a field."""
        return self.take([PREDICTIONS / f"pred_{field}.png"])[0]

    def take(self, paths: Sequence[Path]) -> list[Path]:
        """Copy files from git, or from DVC's cache or remote, and return the copies.

        Raises
        ------
        InputError
            If the experiment does not have a file, or only its hash is here.
        """
        from dvc.exceptions import DvcException  # takes seconds to import
        from dvc_data.index import DataIndexError

        copies = [self.folder / path for path in paths]
        task = f"files of {self.name}"
        pairs = list(zip(paths, copies, strict=True))
        for path, copy in tqdm(pairs, task, unit="file", leave=False, delay=SECONDS):
            if copy.exists():
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                try:  # not by `exists`, which is false for what is not cached, too
                    self.files.info(path.as_posix())
                except FileNotFoundError:
                    raise self._not_run(f"it has no {path}") from None
                self.files.get(path.as_posix(), str(copy))
            except (DataIndexError, DvcException, OSError) as error:
                raise self._missing(path) from error
        return copies

    def _not_run(self, reason: str) -> InputError:
        return InputError(
            f"{self.name} has no scores of its own ({reason}); run it up to them, with "
            f"`dvc exp run {STAGE}` and its parameters, or name others, or other --splits "
            "(trials of a search: valid)"
        )

    def _missing(self, path: Path) -> InputError:
        return InputError(
            f"{path} of {self.name}: git has its hash, but neither DVC's cache nor a remote has "
            f"the file; get it from who ran it with `dvc exp pull <git remote> {self.name}` (of a "
            "commit: `dvc fetch --all-commits`), or run it here"
        )


def open_experiments(names: Sequence[str], folder: Path) -> list[Experiment]:
    """Return experiments of the repository of the working folder by their names.

    Parameters
    ----------
    names : of DVC's experiments, commits, branches or tags; workspace: the working folder
    folder : for copies of their files

    Raises
    ------
    InputError
        If a name is unknown, or two are of the same commit.
    """
    from dvc.api import DVCFileSystem  # takes seconds to import
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        repository = Repo()
    except NotDvcRepoError as error:
        raise InputError(f"{error}; run from a clone of the repository") from None
    found: dict[str | None, Experiment] = {}
    for number, name in enumerate(names):
        commit = None if name == WORKSPACE else _commit_of(repository, name)
        if commit in found:
            raise InputError(
                f"{found[commit].name} and {name} are one and the same"
                f"{f', commit {commit[:12]}' if commit else ''}; name two experiments"
            )
        files = DVCFileSystem(repository.root_dir, rev=commit)
        found[commit] = Experiment(name, commit, files, folder / str(number))
    return list(found.values())


def _commit_of(repository: Any, name: str) -> str:
    from dvc.exceptions import DvcException
    from dvc.scm import SCMError, resolve_rev

    try:
        return resolve_rev(repository.scm, name)
    except SCMError as error:
        known = {*repository.scm.list_branches(), *repository.scm.list_tags(), WORKSPACE}
        with suppress(DvcException):  # another process runs an experiment now
            listed = repository.experiments.ls(all_commits=True)
            known |= {experiment for of in listed.values() for experiment, _ in of}
        near = difflib.get_close_matches(name, sorted(known), SUGGESTED, cutoff=0.5)
        similar = f"similar names are {', '.join(near)}; " if near else ""
        raise InputError(
            f"{name}: {error}; expected one experiment, commit, branch or tag; {similar}"
            "`dvc exp list --all-commits` lists all experiments"
        ) from None


def changed_params(first: Experiment, second: Experiment) -> dict[str, tuple[Any, Any]]:
    """Return the parameters that differ by their names: both values, None where there is none."""
    before, after = dict(flat(first.params)), dict(flat(second.params))
    missing = object()
    return {
        name: (before.get(name), after.get(name))
        for name in before | after
        if before.get(name, missing) != after.get(name, missing)
    }


def changed_code(first: Experiment, second: Experiment) -> list[str]:
    """Return the files and packages that decide scores and differ, as dvc.lock recorded them."""
    before, after = first.code, second.code
    return sorted(path for path in before | after if before.get(path) != after.get(path))
