"""compare.py: two models' scores, read off their own files."""

import json

import numpy as np
from conftest import ROOT

from cellular.comparison import markdown
from cellular.scores import score_field, summarise


def test_scores_stand_side_by_side(run_script, tmp_path):
    truth = np.array([[1, 1, 0, 2]])
    for model, predicted in (("a", [[1, 1, 0, 0]]), ("b", [[1, 1, 0, 2]])):
        (tmp_path / model).mkdir()
        summary = summarise([score_field("x", truth, np.array(predicted))])
        (tmp_path / model / "test_eval.json").write_text(json.dumps(summary))
    code, out, _ = run_script(
        *("compare", "--metrics_dir", tmp_path, "--models", "a", "b", "--splits", "test")
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines()]
    assert code == 0
    assert rows[0] == ["test (1 fields)", "a", "b", "difference"]
    assert ["AP@0.5", "0.500", "1.000", "+0.500"] in rows
    assert ["cells missed", "1", "0", "-1"] in rows
    assert ["pixel recall of cell", "0.667", "1.000", "+0.333"] in rows


def test_what_is_not_there_is_told(run_script, tmp_path):
    code, _, err = run_script("compare", "--metrics_dir", tmp_path)
    assert code == 2 and "test_eval.json: not there; run the pipeline" in err


def test_the_readme_shows_the_committed_scores():
    table = markdown(ROOT / "metrics", ("pretrained", "finetuned"), ("test", "valid"))
    assert table in (ROOT / "README.md").read_text(), "python src/compare.py gives the new table"
