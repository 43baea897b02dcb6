"""The table of cells, scores of groups, and result files that are written and read again."""

import json

import numpy as np
import pandas as pd
import pytest
from helpers.label_maps import scored

from cellular.scoring.cells import COLUMNS
from cellular.scoring.groups import groups, size_limits
from cellular.scoring.results import files_of, read_results, write_results
from cellular.scoring.scores import summarise, table_of_scores

NAME = "Timepoint_002_220518-ST_C03_s3"


def squares(*places: tuple[int, int, int], side: int = 60) -> np.ndarray:
    """Return squares, (top, left, side) each, as a label map."""
    labels = np.zeros((side, side), np.uint16)
    for number, (top, left, size) in enumerate(places, start=1):
        labels[top : top + size, left : left + size] = number
    return labels


# Two squares that touch each other along half of their outlines, one alone, one at the frame.
TRUTH = squares((5, 5, 4), (5, 9, 4), (30, 30, 8), (0, 40, 16))
FOUND = squares((5, 5, 4), (30, 31, 8), (0, 40, 15), (50, 2, 5))


def test_each_true_cell_and_each_prediction_without_a_partner_has_a_row():
    table = scored(TRUTH, FOUND, NAME, classes=["fed", "fed", "unfed", "unfed"]).cells
    assert list(table.columns) == list(COLUMNS)
    assert table["outcome"].tolist() == ["found", "missed", "found", "found", "false positive"]
    assert table["label"].tolist()[:4] == [1, 2, 3, 4] and table["label"].isna().tolist()[4]
    assert table["predicted_label"].fillna(0).tolist() == [1, 0, 2, 3, 4]
    assert table["class"].tolist()[:4] == ["fed", "fed", "unfed", "unfed"]
    assert set(table["timepoint"]) == {"002"} and set(table["well"]) == {"220518-ST C03"}
    third = table.iloc[2]
    assert third["iou"] == pytest.approx(56 / 72)
    assert third["diameter"] == pytest.approx(np.sqrt(4 * 64 / np.pi))
    assert (third["y"], third["x"]) == (33.5, 33.5)
    assert (third["shared_pixels"], third["found_pixels"], third["false_positive_pixels"]) == (
        56,
        56,
        8,
    )
    assert (third["outline"], third["outline_near_2px"]) == (28, 28)
    assert table["border"].tolist() == [False, False, False, True, False]
    # 4 of the 12 outline pixels of each of the first two touch the other one: a third
    assert table["crowded"].tolist()[:4] == [False] * 4
    # the false positive is nearest to the third cell, and is resampled with it
    assert table["unit"].tolist() == [1, 2, 3, 4, 3]


def test_a_cell_among_others_is_crowded():
    ring = squares((10, 10, 10), (10, 20, 10), (20, 10, 10), (20, 20, 10))
    assert scored(ring, ring).cells["crowded"].tolist() == [True] * 4


def test_groups_have_the_scores_of_their_cells():
    result = scored(TRUTH, FOUND, NAME, classes=["fed", "fed", "unfed", "unfed"])
    found = groups([result])
    assert found["class"]["fed"]["recall"] == 0.5 and "precision" not in found["class"]["fed"]
    mean_iou = pytest.approx((56 / 72 + 225 / 256) / 2)
    expected = {"cells": 2, "found": 2, "recall": 1.0, "mean_iou": mean_iou}
    assert found["class"]["unfed"] == expected
    assert found["timepoint"]["002"]["precision"] == 0.75
    for name, cells, hits, part, iou in (
        ("inside", 3, 2, 2 / 3, (1 + 56 / 72) / 2),
        ("touching", 1, 1, 1.0, 225 / 256),
    ):
        expected = {"cells": cells, "found": hits, "mean_iou": pytest.approx(iou)}
        expected |= {"recall": part, "precision": part, "f1": part}
        assert found["border"][name] == expected
    assert found["border"].keys() == {"inside", "touching"}
    assert found["crowding"].keys() == {"alone"}
    assert found["crowding"]["alone"]["recall"] == 0.75 and "f1" not in found["crowding"]["alone"]
    # two cells of 4 px, which have the same size, one of 8 px and one of 16 px
    assert [round(limit, 1) for limit in size_limits([result])] == [4.5, 6.8, 11.3]
    sizes = {name: of["cells"] for name, of in found["size"].items()}
    assert sizes == {"smallest": 2, "large": 1, "largest": 1}


def test_one_well_of_two_plates_is_two_groups():
    fields = ["Timepoint_001_p_C03_s1", "Timepoint_002_p_C03_s2", "Timepoint_001_q_C03_s1"]
    found = groups([scored(TRUTH, FOUND, name) for name in fields])["well"]
    assert {name: scores["cells"] for name, scores in found.items()} == {"p C03": 8, "q C03": 4}


def test_kinds_of_groups_that_are_unknown_are_left_out():
    found = groups([scored(TRUTH, FOUND, "mine")])
    assert found.keys() == {"size", "crowding", "border"}
    assert groups([scored(np.zeros((9, 9)), np.zeros((9, 9)))]) == {}


@pytest.fixture
def two_fields():
    return [scored(TRUTH, FOUND, NAME), scored(TRUTH, TRUTH, "b"), scored(FOUND * 0, FOUND, "c")]


def test_all_scores_follow_from_the_files(two_fields, tmp_path):
    written = write_results(files_of(tmp_path, "test"), two_fields, seed=0)
    paths = files_of(tmp_path, "test")
    assert all(path.is_file() for path in paths.values())
    assert json.loads(paths["scores"].read_text()) == written
    again = read_results(tmp_path, "test")
    assert [result.field for result in again] == [NAME, "b", "c"]
    for place, values in table_of_scores(two_fields).items():
        assert table_of_scores(again)[place] == pytest.approx(values, nan_ok=True), place
    assert groups(again)["size"].keys() == groups(two_fields)["size"].keys()
    assert summarise(again)["counts"] == summarise(two_fields)["counts"]
    fields = pd.read_csv(paths["fields"])
    assert fields["found"].tolist() == [3, 4, 0] and fields["cells"].tolist() == [4, 4, 0]
    curve = pd.read_csv(paths["ap"])
    assert curve["iou"].tolist() == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert (curve["low"] <= curve["average_precision"] + 1e-9).all()
    assert (curve["average_precision"] <= curve["high"] + 1e-9).all()
    assert len(pd.read_csv(paths["diameters"])) == 7


@pytest.mark.parametrize("name", ["NA", "None", "001", "a, b", "nan"])
def test_any_name_of_a_field_or_a_class_is_read_again(tmp_path, name):
    written = scored(TRUTH, FOUND, name, classes=[name] * 4)
    write_results(files_of(tmp_path, "test"), [written], seed=0)
    (again,) = read_results(tmp_path, "test")
    assert again.field == name and set(again.cells["class"].dropna()) == {name}
    assert summarise([again])["counts"] == summarise([written])["counts"]


def test_the_same_results_are_the_same_bytes(two_fields, tmp_path):
    for name in ("a", "b"):
        write_results(files_of(tmp_path / name, "test"), two_fields, seed=3)
    for first, second in zip(
        *(files_of(tmp_path / name, "test").values() for name in ("a", "b")), strict=True
    ):
        assert first.read_bytes() == second.read_bytes()
