"""The summary of a run: the numbers by which DVC compares runs."""

import json

import pytest
from helpers.label_maps import row_of_cells

from cellular.base.params import flat
from cellular.scoring.scores import nested, summarise
from cellular.scoring.summary import NUMBERS, summary_of


@pytest.fixture
def scores():
    """Two models on three splits, as <split>_eval.json has them."""
    return {
        model: {
            split: summarise([row_of_cells(found, 7)])
            for split, found in (("test", 5), ("valid", 6), ("train", 7))
        }
        for model in ("pretrained", "finetuned")
    }


def test_the_summary_has_the_scores_of_the_finetuned_model_and_one_of_the_pretrained(scores):
    summary = summary_of(scores, 1.60785752)
    assert summary.keys() == {"test", "valid", "pretrained", "best_valid_loss"}
    assert summary["test"].keys() == summary["valid"].keys() == NUMBERS.keys()
    assert summary["test"]["recall"] == summary["test"]["ap50"] == 0.7143  # 5 / 7
    assert summary["test"]["precision"] == 1 and summary["test"]["count_error"] == -0.2857
    assert summary["valid"]["recall"] == 0.8571  # 6 / 7
    assert summary["pretrained"] == {"ap50": 0.7143}
    assert summary["best_valid_loss"] == 1.6079


def test_numbers_are_those_of_the_scores_rounded_to_four_digits(scores):
    summary = summary_of(scores)
    for name, place in NUMBERS.items():
        exact = dict(flat(scores["finetuned"]["valid"]))[".".join(place)]
        assert summary["valid"][name] == pytest.approx(exact, abs=0.5e-4)
        assert round(summary["valid"][name], 4) == summary["valid"][name]


def test_one_model_alone_gives_its_part_of_the_summary(scores):
    assert summary_of({"pretrained": scores["pretrained"]}) == {"pretrained": {"ap50": 0.7143}}
    assert summary_of({"finetuned": scores["finetuned"]}).keys() == {"test", "valid"}
    assert summary_of({"another": scores["finetuned"]}) == {}
    assert summary_of({"finetuned": {"train": scores["finetuned"]["train"]}}) == {}


def test_scores_that_are_not_defined_are_left_out():
    empty = summarise([row_of_cells(0, 0)])
    nothing_found = summarise([row_of_cells(0, 3)])
    summary = summary_of({"finetuned": {"test": nothing_found}, "pretrained": {"test": empty}})
    assert "precision" not in summary["test"] and summary["test"]["recall"] == 0
    assert "pretrained" not in summary and "best_valid_loss" not in summary
    json.dumps(summary, allow_nan=False)


def test_places_in_nested_dicts_are_names_with_dots():
    places = {("a",): 1, ("b", "c"): 2, ("b", "d", "0.5"): 3}
    assert list(flat(nested(places))) == [("a", 1), ("b.c", 2), ("b.d.0.5", 3)]
    assert list(flat({"empty": {}})) == []
