"""check_reproduction.py: whether a run gave the numbers of the committed run."""

import json
import subprocess

import pytest

from check_reproduction import compare, markdown, sentence

PARAMS = "seed: 0\ntrain:\n  n_epochs: 30  # largest number\n"
SUMMARY = {"test": {"ap50": 0.573, "f1": 0.7287}, "best_valid_loss": 1.6079}
TOLERANCES = {"how": "two machines", "tolerances": {"test.ap50": 0.02}}


def git(*arguments):
    subprocess.run(["git", *arguments], check=True, capture_output=True)


@pytest.fixture
def check(run_script, tmp_path, monkeypatch):
    """Run the script in a repository whose only commit has a run; give it another summary."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "metrics" / "summary.json").write_text(json.dumps(SUMMARY))
    (tmp_path / "metrics" / "tolerances.json").write_text(json.dumps(TOLERANCES))
    git("init", "-q")
    git("add", "-A")
    git("-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", "a run")

    def run(*arguments, test=None, **other):
        here = SUMMARY | {"test": SUMMARY["test"] | (test or {})} | other
        (tmp_path / "metrics" / "summary.json").write_text(json.dumps(here))
        return run_script("check_reproduction", *arguments)

    return run


def rows(out):
    lines = [line for line in out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {name: others for name, *others in cells}


def test_the_same_numbers_are_reproduced(check):
    code, out, _ = check()
    assert code == 0
    assert out.endswith("Reproduced: all 3 numbers are those of the committed run.\n")
    assert rows(out)["test.ap50"] == ["0.5730", "0.5730", "+0.0000", "0.0200", ""]


@pytest.mark.parametrize("ap50", [0.593, 0.553, 0.5731])
def test_numbers_within_the_tolerance_are_reproduced(check, ap50):
    code, out, _ = check(test={"ap50": ap50})
    assert code == 0
    assert "Reproduced: all 3 numbers are those of the committed run, within the tolerance" in out


@pytest.mark.parametrize(
    ("test", "named"),
    [
        ({"ap50": 0.5931}, "1: test.ap50 outside the tolerance."),
        ({"f1": 0.7288}, "1: test.f1 outside the tolerance."),  # it has no tolerance
        ({"ap50": 0.1, "f1": 0.1}, "2: test.ap50 outside the tolerance, test.f1 outside"),
    ],
)
def test_numbers_outside_the_tolerance_are_named(check, test, named):
    code, out, _ = check(test=test)
    assert code == 0  # another machine's numbers are no error
    assert f"Not reproduced: of 3 numbers {named}" in out
    assert rows(out)[f"test.{next(iter(test))}"][-1] == "outside the tolerance"


def test_a_number_that_one_side_lacks_is_not_reproduced(check):
    code, out, _ = check(test={"recall": 0.6}, best_valid_loss={})
    assert code == 0
    assert "Not reproduced: of 4 numbers 2: best_valid_loss missing here, " in out
    assert out.endswith("test.recall not committed.\n")
    assert rows(out)["test.recall"] == ["–", "0.6000", "–", "0.0000", "not committed"]
    assert rows(out)["best_valid_loss"] == ["1.6079", "–", "–", "0.0000", "missing here"]


def test_with_other_parameters_it_is_another_experiment(check, tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 0\ntrain: {n_epochs: 5}\nmore: 1\n")
    code, out, _ = check(test={"ap50": 0.1})
    assert code == 0 and "|" not in out and "eproduced" not in out
    assert (
        "another experiment than that of HEAD: params.yaml differs in train.n_epochs, more" in out
    )


def test_a_comment_in_params_yaml_changes_no_experiment(check, tmp_path):
    (tmp_path / "params.yaml").write_text("# mine\n" + PARAMS)
    assert "Reproduced: all 3" in check()[1]


def test_the_commit_may_be_named(check, tmp_path):
    assert check(test={"ap50": 0.1})[1].count("Not reproduced") == 1
    git("-c", "user.name=test", "-c", "user.email=a@example.org", "commit", "-qam", "another run")
    assert "Reproduced: all 3" in check(test={"ap50": 0.1})[1]
    code, out, _ = check("--revision", "HEAD~1", test={"ap50": 0.1})
    assert code == 0 and "Not reproduced" in out


def test_paths_may_be_absolute(check, tmp_path):
    summary = tmp_path / "metrics" / "summary.json"
    tolerances = tmp_path / "metrics" / "tolerances.json"
    assert "Reproduced" in check("--summary", summary, "--tolerances", tolerances)[1]


def test_what_cannot_be_compared_is_one_clear_error(check, tmp_path):
    code, out, err = check("--revision", "nowhere")
    assert (code, out) == (2, "") and "params.yaml of nowhere cannot be read" in err
    code, _, err = check("--summary", tmp_path / "mine.json")
    assert code == 2 and "mine.json of HEAD cannot be read" in err and "--revision" in err
    code, _, err = check("--tolerances", "no.json")
    assert code == 2 and "no.json does not exist" in err


@pytest.mark.parametrize("found", [{"test": {"ap50": "word"}}, {"more": [1, 2]}])
def test_a_number_that_is_none_is_one_clear_error(check, found):
    code, out, err = check(**found)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "summary.json" in err and "numbers with names are expected" in err


@pytest.mark.parametrize("found", [[], {"test.ap50": "w"}])
def test_a_tolerance_that_is_none_is_one_clear_error(check, tmp_path, found):
    text = json.dumps({"tolerances": found})
    (tmp_path / "metrics" / "tolerances.json").write_text(text)
    code, out, err = check()
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "tolerances.json" in err and "numbers with names are expected" in err


@pytest.mark.parametrize("name", ["params.yaml", "metrics/summary.json"])
@pytest.mark.parametrize("content", [b"a: [", b"[1]", b"\xf6: 1"])
def test_a_committed_file_that_cannot_be_read_is_one_clear_error(check, tmp_path, name, content):
    before = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content)
    git("-c", "user.name=test", "-c", "user.email=a@example.org", "commit", "-qam", "broken")
    (tmp_path / name).write_bytes(before)
    code, out, err = check()
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert f"error: {name} of HEAD " in err


def test_without_any_number_nothing_is_claimed():
    assert "Reproduced" not in sentence(compare({}, {}, {}))
    assert markdown(compare({}, {}, {}))
