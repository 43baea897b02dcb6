"""Files of results: what is cut, changed or of another evaluation is told before it is shown."""

import json

import numpy as np
import pytest
from helpers.label_maps import row_of_cells

from cellular.base.errors import InputError
from cellular.scoring.results import (
    files_of,
    read_json,
    read_results,
    read_scores,
    read_table,
    write_results,
)


@pytest.fixture
def paths(tmp_path):
    """The files of a split with two fields."""
    results = [row_of_cells(2, 3, "a", false_positives=1), row_of_cells(1, 2, "b")]
    write_results(files_of(tmp_path / "good", "test"), results, seed=0, run={"device": "cpu"})
    return files_of(tmp_path / "good", "test")


def replaced(old: bytes, new: bytes):
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return change


def without_rows(content: bytes) -> bytes:
    return content.splitlines(keepends=True)[0]


def last_row_twice(content: bytes) -> bytes:
    return content + content.splitlines(keepends=True)[-1]


CHANGES = {
    "a word for a number": replaced(b"1,", b"one,"),
    "an IoU of 7": replaced(b"found,1,", b"found,7,"),
    "a huge number": replaced(b"1,", b"1" + b"0" * 400 + b","),
    "a row twice": last_row_twice,
    "no rows": without_rows,
    "other columns": lambda content: b"a,b\n1,2\n",
    "cut in a row": lambda content: content[:-3],
    "cut after a row": lambda content: b"".join(content.splitlines(keepends=True)[:-1]),
    "empty": lambda content: b"",
    "Latin-1": lambda content: content + "ä".encode("latin-1"),
}


@pytest.mark.parametrize(
    ("table", "change"),
    [
        *(("cells", change) for change in CHANGES),
        *((table, "cut after a row") for table in ("fields", "ap", "sizes", "diameters")),
    ],
)
def test_a_table_that_is_not_as_it_was_written_is_an_error(paths, table, change):
    paths[table].write_bytes(CHANGES[change](paths[table].read_bytes()))
    with pytest.raises(InputError, match="evaluate again") as error:
        read_results(paths["scores"].parent, "test")
    assert str(error.value).startswith(f"{paths[table]}: not the table that")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", CHANGES)
def test_compare_tells_it_in_one_line(run_script, paths, change):
    paths["cells"].write_bytes(CHANGES[change](paths["cells"].read_bytes()))
    folder = paths["scores"].parents[1]
    code, out, err = run_script(
        *("compare", "--metrics_dir", folder, "--models", "good", "good", "--splits", "test"),
    )
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1


def test_tables_of_another_evaluation_are_an_error_that_names_all(paths, tmp_path):
    write_results(files_of(tmp_path / "other", "test"), [row_of_cells(2, 2, "a")], seed=0)
    other = files_of(tmp_path / "other", "test")
    paths["scores"].write_bytes(other["scores"].read_bytes())
    with pytest.raises(InputError) as error:
        read_results(tmp_path / "good", "test")
    assert len(error.value.faults) == 5


@pytest.mark.parametrize("name", ["scores", "fields", "cells", "ap"])
def test_a_file_that_is_missing_is_named(paths, name):
    paths[name].unlink()
    with pytest.raises(InputError, match=f"{paths[name].name} does not exist"):
        read_results(paths["scores"].parent, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "not valid JSON"),
        ('{"a":' * 1000 + "1" + "}" * 1000, "not valid JSON"),
        ('{"a":' * 900 + "1" + "}" * 900, "not valid JSON|no hashes"),
        ("1" * 5000, "not valid JSON"),
        ("{}", "no hashes"),
        ('{"files": {}, "objects": {"f1": "high"}}', 'objects.f1 is "high"'),
        ('{"files": {}, "objects": {"f1": NaN}}', "objects.f1 is NaN"),
        ('{"files": {}, "objects": {"f1": 1e999}}', "objects.f1 is Infinity"),
        ('{"files": {}, "objects": {"f1": null}}', "objects.f1 is null"),
        ('{"files": {}, "objects": [1]}', r"objects is \[1\]"),
    ],
)
def test_scores_that_are_none_are_an_error(paths, content, message):
    paths["scores"].write_text(content)
    for read in (lambda folder: read_scores(folder, ["test"]), lambda f: read_results(f, "test")):
        with pytest.raises(InputError, match=message) as error:
            read(paths["scores"].parent)
        assert str(error.value).startswith(f"{paths['scores']}: ")
        assert len(str(error.value)) < 400


def test_a_table_of_another_stage_that_is_cut_or_no_table_is_an_error(tmp_path):
    path = tmp_path / "train.csv"
    for content in (b"", b"epoch,train_loss\n1,0.5\n2,0.", b"a,b\n1,2\n3,4,5\n", b"\xff\xfe\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"train\.csv: not a table of its stage"):
            read_table(path)
    path.write_text("epoch,train_loss\n1,low\n")
    for kinds in ({"train_loss": "float64"}, {"valid_loss": "float64"}):
        with pytest.raises(InputError, match="not a table of its stage"):
            read_table(path, kinds)
    path.write_text("epoch\n" + "9" * 400 + "\n")
    with pytest.raises(InputError, match="not a table of its stage"):
        read_table(path, {"epoch": "int64"})


def test_how_the_results_came_about_is_stored_with_them(paths):
    content = read_json(paths["scores"])
    assert content["run"] == {"device": "cpu"}
    assert content["files"].keys() == paths.keys() - {"scores"}
    assert np.isfinite(read_scores(paths["scores"].parent, ["test"])["test"]["objects"]["f1"])
    assert json.loads(paths["scores"].read_text()) == content


def test_a_split_that_was_not_scored_as_others_were_is_told_as_such(paths):
    folder = paths["scores"].parent
    with pytest.raises(InputError, match=r"valid_eval\.json does not exist; .* eval\.skip: \[\]"):
        read_results(folder, "valid")
    paths["scores"].unlink()
    with pytest.raises(
        InputError, match="does not exist; run the pipeline first, with `make re"
    ) as e:
        read_results(folder, "valid")
    assert "eval.skip" not in str(e.value)


def test_the_table_of_fields_says_where_a_field_comes_from(tmp_path):
    results = [row_of_cells(2, 3, "Timepoint_002_p_C03_s1"), row_of_cells(1, 2, "mine")]
    paths = files_of(tmp_path, "test")
    write_results(paths, results, seed=0)
    table = read_table(paths["fields"], {"timepoint": "string"}).fillna("")
    assert list(table)[:5] == ["field", "timepoint", "well", "site", "pixels"]
    assert table.iloc[0].tolist()[1:4] == ["002", "p C03", "p C03 s1"]
    assert table.iloc[1].tolist()[1:4] == ["", "", ""]
