"""compare.py --experiments: two DVC experiments, on fields small enough to count by eye."""

import csv
import json
import shutil

import numpy as np
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from helpers.annotations import write_png
from helpers.browser import browser
from helpers.label_maps import scored
from helpers.repository import Repository

from cellular.imaging.images import write_labels
from cellular.scoring.results import files_of, write_results

pytestmark = pytest.mark.slow

CELLS = 6
X, Y = (f"Timepoint_001_p_C03_s{site}" for site in (1, 2))  # two sites of one well
PIPELINE = {
    "stages": {
        "prepare": {"cmd": "false", "params": ["class_name"], "outs": ["data/prepared"]},
        "train": {
            "cmd": "false",
            "params": ["train"],
            "deps": ["data/prepared/all"],
            "outs": ["models/finetuned", "metrics/train.json"],
        },
        "evaluate": {
            "foreach": ["finetuned"],
            "do": {
                "cmd": "false",
                "params": ["class_name", "eval"],
                "deps": ["data/prepared/all", "models/${item}", "src/eval.py"],
                "outs": ["data/predictions/${item}", "metrics/${item}"],
            },
        },
    }
}
PARAMS = {"class_name": "all", "train": {"n_epochs": 3}, "eval": {"unit": "well", "augment": False}}


def maps(found: tuple[int, ...], false_positives: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a row of six cells, and predictions that find some of them, (40, 120) uint16."""
    truth, predicted = np.zeros((2, 40, 20 * CELLS), np.uint16)
    for number in range(CELLS):
        truth[4:16, 20 * number + 2 : 20 * number + 16] = number + 1
    for label, number in enumerate(found, start=1):
        predicted[truth == number] = label
    for number in range(false_positives):
        predicted[24:36, 20 * number + 2 : 20 * number + 16] = len(found) + number + 1
    return truth, predicted


def write(repository: Repository, fields: dict[str, tuple], **params: object) -> None:
    """Write what a run leaves, in place of what is there, for DVC to record it."""
    root = repository.folder
    changed = {
        section: values | params.get(section, {}) if isinstance(values, dict) else values
        for section, values in PARAMS.items()
    }
    (root / "params.yaml").write_text(yaml.safe_dump(changed))
    for folder in ("data", "metrics", "models"):
        shutil.rmtree(root / folder, ignore_errors=True)
    results = []
    (root / "data/predictions/finetuned").mkdir(parents=True)
    for name, (found, false_positives) in fields.items():
        truth, predicted = maps(found, false_positives)
        write_png(root / f"data/prepared/all/test/{name}.png", 9 * truth.astype(np.uint8) + 20)
        write_labels(root / f"data/prepared/all/test/{name}_masks.png", truth)
        write_labels(root / f"data/predictions/finetuned/pred_{name}.png", predicted)
        results.append(scored(truth, predicted, name))
    run = {"data": "ab" * 32, "weights": "cd" * 32, "precision": "32"}
    write_results(files_of(root / "metrics/finetuned", "test"), results, seed=0, run=run)
    (root / "models/finetuned").mkdir(parents=True)
    (root / "models/finetuned/cellular_finetuned").write_text(str(changed["train"]))
    (root / "metrics/train.json").write_text(json.dumps({"trained_on": ["train"]}))
    repository.dvc("commit", "-f")


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Repository:
    """A repository with the experiments that the tests compare."""
    made = Repository(tmp_path_factory.mktemp("experiments") / "repository")
    (made.folder / "src").mkdir(parents=True)
    (made.folder / "src" / "eval.py").write_text("# scores\n")
    made.git("init", "-q", "-b", "main")
    made._configure()
    made.dvc("init", "-q")
    (made.folder / "dvc.yaml").write_text(yaml.safe_dump(PIPELINE))
    (made.folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    made.commit("code")
    made.git("tag", "nothing-run")
    write(made, {X: ((1, 2, 3), 0), Y: ((1, 2), 0)})
    made.commit("run")

    def saved(name: str) -> None:
        made.dvc("exp", "save", "-n", name)
        made.git("checkout", "-q", "-f", "main")
        made.dvc("checkout", "-q", "-f")

    write(made, {X: ((2, 3, 4, 5), 1), Y: ((1, 2), 0)}, eval={"augment": True})
    (made.folder / "src" / "eval.py").write_text("# scores, otherwise\n")
    made.dvc("commit", "-f")
    saved("mirrored")
    write(made, {Y: ((1, 2, 3), 0), "z": ((1,), 0), "u": ((1,), 0)})
    saved("fewer")
    write(made, {"z": ((1,), 0)})
    saved("other-fold")
    made.change("train", n_epochs=9)
    for name in ("not-trained", "not-scored"):  # the second was trained with the parameters
        made.commit(name)
        made.git("tag", name)
        (made.folder / "models/finetuned/cellular_finetuned").write_text("other weights")
        made.dvc("commit", "-f", "train")
    made.git("reset", "-q", "--hard", "HEAD~2")
    made.dvc("checkout", "-q", "-f")
    return made


@pytest.fixture
def against(repository, run_script, tmp_path, monkeypatch):
    """Compare two experiments, and return exit code, output and errors."""
    monkeypatch.chdir(repository.folder)

    def run(first: str, second: str, *arguments: object):
        where = () if "--output_dir" in arguments else ("--output_dir", tmp_path / "page")
        return run_script(
            *("compare", "--experiments", first, second, "--splits", "test"), *where, *arguments
        )

    return run


def test_two_experiments_are_compared_on_scores_cells_parameters_and_code(against, tmp_path):
    code, out, err = against("HEAD", "mirrored")
    assert code == 0, err
    assert out.startswith("1 parameter differs. The code differs, too: src/eval.py.\n")
    assert "| eval.augment |  false |       true |" in out
    assert (
        "test: 2 fields of 1 well cannot tell whether mirrored finds cells better than HEAD" in out
    )
    assert "| cells found (IoU 0.5)                      |      5 |          6 |" in out
    said = "Of the 12 cells of test, only mirrored finds 2, only HEAD 1, both find 4, and neither"
    assert f"{said} finds 5." in out
    page = tmp_path / "page"
    assert out.endswith(f"\n\n{page / 'comparison.html'}\n")
    assert out.startswith((page / "comparison.md").read_text())
    content = json.loads((page / "comparison.json").read_text())
    assert content["parameters"] == {"eval.augment": {"HEAD": False, "mirrored": True}}
    assert list(content["experiments"]) == ["HEAD", "mirrored"]
    found_by = {"both": 4, "HEAD": 1, "mirrored": 2, "neither": 5}
    assert content["splits"]["test"]["cells_found_by"] == found_by
    with (page / "cells.csv").open(newline="") as file:
        rows = {(row["field"], row["label"]): row for row in csv.DictReader(file)}
    assert len(rows) == 12
    assert [rows[X, str(label)]["found_by"] for label in range(1, CELLS + 1)] == [
        *("HEAD", "both", "both", "mirrored", "mirrored", "neither"),
    ]
    assert (rows[X, "2"]["split"], rows[X, "2"]["area"]) == ("test", "168")
    assert (rows[X, "2"]["y"], rows[X, "2"]["x"]) == ("9.5", "28.5")


def test_sites_of_one_well_count_as_one_if_the_parameters_or_a_flag_say_so(against):
    by_site = "test: 2 sites cannot tell whether mirrored finds cells better than HEAD"
    assert by_site not in against("HEAD", "mirrored")[1]
    assert by_site in against("HEAD", "mirrored", "--unit", "site", "--force")[1]


def test_the_same_comparison_is_the_same_bytes_and_replaces_nothing_unasked(against, tmp_path):
    assert against("HEAD", "mirrored")[0] == 0
    files = {path: path.read_bytes() for path in (tmp_path / "page").iterdir()}
    (tmp_path / "page" / "mine.txt").touch()
    code, _, err = against("HEAD", "mirrored")
    assert code == 2 and "comparison.html exists already" in err
    assert against("HEAD", "mirrored", "--force")[0] == 0
    assert files == {path: path.read_bytes() for path in files}
    assert (tmp_path / "page" / "mine.txt").exists()


def test_the_page_has_a_picture_of_each_field_that_differs(against, tmp_path):
    assert against("HEAD", "mirrored")[0] == 0
    page = tmp_path / "page" / "comparison.html"
    for width, scheme in ((390, "dark"), (1440, "light")):
        with browser() as started:
            tab = started.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            requested = []
            tab.on("request", lambda request, seen=requested: seen.append(request.url))
            tab.goto(page.as_uri())
            assert [url for url in requested if not url.startswith("data:")] == [page.as_uri()]
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            faults = Axe().run(tab).response["violations"]
            assert not [(fault["id"], fault["nodes"][0]["html"][:200]) for fault in faults]
            (picture,) = tab.get_by_role("button").all()  # the other has no cell of one alone
            picture.press("Enter")
            shown = tab.get_by_role("dialog").get_by_role("img").get_attribute("alt")
            assert shown == (
                f"Outlines of cells, test: {X}: only HEAD finds 1 and only mirrored finds 2 of "
                "its 6 cells; false positives: 0 of HEAD (left), 1 of mirrored (right)"
            )
            tab.keyboard.press("Escape")
            text = tab.locator("body").inner_text()
            assert "only mirrored finds 2, only HEAD 1" in text and "eval.augment" in text


def test_the_fields_of_one_experiment_are_left_out_and_counted(against):
    code, out, err = against("HEAD", "fewer")
    assert code == 0, err
    assert "No parameter differs.\n" in out
    assert "test: 1 field cannot tell" in out and "| test (1 field, 6 cells) " in out
    said = "Left out are fields of test that only one has scored: 1 of HEAD and 2 of fewer."
    assert said in out
    assert "only fewer finds 1, only HEAD 0, both find 2, and neither finds 3." in out


def test_experiments_without_a_field_in_common_are_told_apart(against, tmp_path):
    code, out, err = against("HEAD", "other-fold")
    assert (code, out) == (2, "")
    said = f"test: no field was scored by both; HEAD has {X}, {Y}; other-fold has z."
    assert said in err and not (tmp_path / "page").exists()


def test_the_working_folder_is_an_experiment_too(against, repository):
    code, out, err = against("mirrored", "workspace")
    assert code == 0, err
    assert "only workspace finds 1, only mirrored 2, both find 4" in out


def test_without_an_output_the_page_lies_beside_other_experiments(
    repository, run_script, monkeypatch
):
    monkeypatch.chdir(repository.folder)
    code, out, err = run_script("compare", "--experiments", "main", "mirrored", "--splits", "test")
    assert code == 0, err
    assert out.endswith("\nexperiments/main-against-mirrored/comparison.html\n")
    shutil.rmtree(repository.folder / "experiments")


@pytest.mark.parametrize(
    ("first", "second", "messages"),
    [
        ("HEAD", "mirored", ["mirored: unknown Git revision", "similar names are mirrored"]),
        ("HEAD", "both", ["both: the tables use this word; name the experiment by its commit"]),
        ("HEAD", "main", ["HEAD and main are one and the same, commit"]),
        ("nothing-run", "HEAD", ["nothing-run has no scores of its own", "dvc exp run evaluate"]),
        ("not-trained", "HEAD", ["train.n_epochs changed after train was run"]),
        ("not-scored", "HEAD", ["models/finetuned changed after evaluate@finetuned was run"]),
    ],
)
def test_an_experiment_that_cannot_be_compared_is_one_clear_error(
    against, tmp_path, first, second, messages
):
    code, out, err = against(first, second)
    assert (code, out) == (2, "") and err.count("error:") == 1
    for message in messages:
        assert message in err
    assert not (tmp_path / "page").exists()


def test_a_split_that_was_not_scored_is_named(against):
    code, _, err = against("HEAD", "mirrored", "--splits", "valid")
    assert code == 2 and "HEAD has no scores of its own (it has no metrics/finetuned/valid_" in err


def test_results_that_are_not_in_the_cache_are_told_with_the_command_that_gets_them(
    repository, run_script, tmp_path, monkeypatch
):
    clone = tmp_path / "clone"
    repository.git("clone", "-q", str(repository.folder), str(clone))
    repository.git("push", "-q", str(clone), "refs/exps/*:refs/exps/*")
    monkeypatch.chdir(clone)
    code, _, err = run_script("compare", "--experiments", "mirrored", "fewer")
    assert code == 2 and "neither DVC's cache nor a remote has the file" in err
    assert "metrics/finetuned/test_eval.json of mirrored" in err
    assert "`dvc exp pull <git remote> mirrored`" in err


def test_outside_of_a_repository_is_one_clear_error(run_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_script("compare", "--experiments", "HEAD", "mirrored")
    assert code == 2 and "run from a clone of the repository" in err
    assert not (tmp_path / "experiments").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--experiments", "a", "b", "--models", "pretrained", "finetuned"), "--models"),
        (("--experiments", "a", "b", "--metrics_dir", "metrics"), "--metrics_dir"),
        (("--experiments", "a", "b", "--table", "t.md"), "--table"),
        (("--output_dir", "page"), "--output_dir has no meaning without"),
    ],
)
def test_flags_of_models_and_of_experiments_do_not_mix(run_script, arguments, message):
    code, _, err = run_script("compare", *arguments)
    assert code == 2 and message in err and "has no meaning with" in err
