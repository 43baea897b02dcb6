"""What is committed fits together: dvc.yaml, dvc.lock, parameters, code and metrics.

All of it is read from the last commit: whoever runs the pipeline on another machine has other
digits in the working tree.
"""

import ast
import json
from pathlib import Path

import pytest
import yaml
from helpers.annotations import ROOT
from helpers.repository import Repository

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
SRC = ROOT / "src"
# Imported by a script only when it runs alone (the pipeline gives train.py weights and flows), or
# only to check parameters, which the stage check_params has done before.
NOT_IN_THE_PIPELINE = {
    "train": {
        "cellular.fetching.pretrained",
        "cellular.preparing.flows",
        "cellular.preparing.params",
    },
    "card": {"parameters"},
    "compare": {"cellular.reporting.against"},
    "report": {"parameters"},
}


@pytest.fixture(scope="module")
def clean_clone(tmp_path_factory):
    """A clone of the last commit, without any data."""
    repository = Repository(tmp_path_factory.mktemp("clone") / "repository")
    repository.git("clone", "-q", str(ROOT), str(repository.folder), cwd=ROOT)
    return repository


def test_the_committed_lock_belongs_to_the_committed_code_parameters_and_metrics(clean_clone):
    status = json.loads(clean_clone.dvc("status", "--json"))
    states = [
        (path, state)
        for changes in status.values()
        for change in changes
        for paths in change.values()
        for path, state in (paths.items() if isinstance(paths, dict) else [(paths, "changed")])
    ]
    # A clean clone has none of the files that DVC keeps: that is all that may be missing.
    missing = {path for path, state in states if state in ("deleted", "not in cache")}
    stale = [entry for entry in states if entry[0] not in missing]
    assert not stale, "run `dvc repro` and commit dvc.lock, metrics and plots"
    weights = "models/finetuned/cellular_finetuned"
    assert {weights, "metrics/finetuned", "metrics/report.html"} <= missing
    assert not {"metrics/summary.json", "metrics/comparison.md", "metrics/example.png"} & missing


def test_the_committed_run_found_what_is_known_of_the_pretrained_network(clean_clone):
    summary = clean_clone.json("metrics/summary.json")
    assert summary["pretrained"]["ap50"] == pytest.approx(0.36, abs=0.01)
    assert summary["test"]["ap50"] > summary["pretrained"]["ap50"]


def imports(path: Path) -> set[str]:
    """Return our own modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if file_of(name).is_file()}
    return found


def file_of(module: str) -> Path:
    return SRC / f"{module.replace('.', '/')}.py"


@pytest.mark.parametrize("stage", sorted(STAGES.keys() - {"check_params"}))
def test_a_stage_depends_on_the_packages_that_it_uses_and_on_no_other(stage):
    described = STAGES[stage].get("do", STAGES[stage])
    script = next(path for path in described["deps"] if path.endswith(".py"))
    left_out = NOT_IN_THE_PIPELINE.get(stage, set())
    used: set[str] = set()
    waiting = imports(ROOT / script) - left_out
    while waiting:
        used.add(module := waiting.pop())
        waiting |= imports(file_of(module)) - used - left_out
    listed = {path for path in described["deps"] if path.startswith("src/cellular/")}
    assert listed == {f"src/cellular/{module.split('.')[1]}" for module in used}


def test_dvc_yaml_is_short_and_names_no_module():
    text = (ROOT / "dvc.yaml").read_text()
    assert len(text.splitlines()) <= 250
    for path in (ROOT / "src/cellular").rglob("*.py"):
        assert path.name == "__init__.py" or f"/{path.parent.name}/{path.name}" not in text
