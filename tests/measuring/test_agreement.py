"""What segmentation errors cost: by hand, and what holds for any pair of label maps."""

import numpy as np
import pandas as pd
import pytest
from helpers.label_maps import pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from cellular.imaging.matching import count_overlaps, match
from cellular.measuring.agreement import (
    PARTS,
    QUARTERS,
    agreement,
    cost,
    partners,
    recall_by_quarter,
    recall_sentence,
)
from cellular.measuring.wells import READOUTS


def table(labels: np.ndarray, values: np.ndarray, field: str = "x", well: str = "A01"):
    """Return a table of the cells of a label map, with the value of its label as each read-out."""
    cells = pd.DataFrame({"label": np.setdiff1d(labels, 0).astype("int64")})
    cells["field"], cells["well"] = field, well
    return cells.assign(**dict.fromkeys(READOUTS, values[cells["label"]]))


def cells(*values: float, field: str = "x", well: str = "A01") -> pd.DataFrame:
    """Return a table of cells 1, 2, ... with these values as each read-out."""
    return table(np.arange(len(values) + 1), np.array([0.0, *values]), field, well)


def outcomes(*rows: tuple, field: str = "x") -> pd.DataFrame:
    """Return rows of `partners`: outcome, label and predicted label."""
    made = pd.DataFrame(rows, columns=["outcome", "label", "predicted_label"])
    types = {"outcome": "string", "label": "Int64", "predicted_label": "Int64"}
    return made.astype(types).assign(field=field)


def found(count: int, field: str = "x") -> pd.DataFrame:
    return outcomes(*(("found", label, label) for label in range(1, count + 1)), field=field)


# Six decimals, so that no square vanishes.
VALUES = (
    st.floats(-1e6, 1e6).map(lambda value: round(value, 6))
    | st.integers(0, 3).map(float)
    | st.just(np.nan)
)


@st.composite
def measured(draw):
    """Draw tables of annotated and predicted cells of two fields of one well, and `partners`."""
    parts = []
    for field in ("x", "y"):
        truth, predicted = draw(pairs)
        tables = (
            table(labels, np.array(draw(st.lists(VALUES, min_size=size, max_size=size))), field)
            for labels in (truth, predicted)
            for size in [int(labels.max()) + 1]
        )
        parts.append((*tables, partners(field, truth, predicted)))
    return tuple(pd.concat(of, ignore_index=True) for of in zip(*parts, strict=True))


def test_each_cell_has_its_outcome_and_each_found_one_its_partner():
    truth = np.array(
        [
            [7, 7, 0, 2, 2, 3, 3, 0, 9, 9, 9, 9],
            [7, 7, 0, 2, 2, 3, 3, 0, 9, 9, 9, 9],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            [4, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
    )
    predicted = np.array(
        [
            [5, 5, 0, 1, 1, 1, 1, 1, 3, 3, 3, 4],
            [5, 0, 0, 1, 1, 1, 1, 1, 3, 3, 3, 4],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 8],
        ]
    )
    found = partners("x", truth, predicted)
    assert list(found.fillna(0).itertuples(index=False, name=None)) == [
        ("x", "merged", 2, 0),
        ("x", "merged", 3, 0),
        ("x", "missed", 4, 0),
        ("x", "found", 7, 5),
        ("x", "found", 9, 3),
        ("x", "merging", 0, 1),
        ("x", "part", 0, 4),
        ("x", "false positive", 0, 8),
    ]


@settings(max_examples=50)
@given(pairs)
def test_every_cell_has_the_outcome_that_matching_gives_it(pair):
    truth, predicted = pair
    expected = match(count_overlaps(truth, predicted))
    # Gaps between the labels, which users' maps may have, change nothing else.
    found = partners("x", truth.astype(np.uint32) * 3, predicted * 2)
    true = found[found["label"].notna()]
    assert true["label"].tolist() == list(range(3, 3 * int(truth.max()) + 1, 3))
    assert true["outcome"].tolist() == expected.true_outcomes.tolist()
    guess = found[found["predicted_label"].notna()].sort_values("predicted_label")
    assert guess["predicted_label"].tolist() == list(range(2, 2 * int(predicted.max()) + 1, 2))
    assert guess["outcome"].tolist() == expected.predicted_outcomes.tolist()


def test_agreement_by_hand():
    """Differences are 1, 2, 3: bias 2, standard deviation 1."""
    measures = agreement(cells(1, 2, 3), cells(2, 4, 6), found(3))["ratio"]
    # Variances 2/3 and 8/3, covariance 4/3, means 2 and 4: 2 * 4/3 / (2/3 + 8/3 + 4) = 4/11.
    assert measures == pytest.approx(
        {"n": 3, "bias": 2, "low": 2 - 1.96, "high": 2 + 1.96, "concordance": 4 / 11}
    )


def test_a_pair_without_a_value_is_left_out_of_that_read_out_only():
    annotated, predicted = cells(1, 2, 3), cells(1, 2, 5)
    predicted.loc[2, "red_only_fraction"] = np.nan
    annotated.loc[0, "red_only_fraction"] = np.inf
    measures = agreement(annotated, predicted, found(3))
    assert measures["red_only_fraction"] == {"n": 1, "bias": 0}
    assert measures["ratio"]["n"] == 3


def test_partners_are_compared_by_their_field_and_their_labels():
    annotated = pd.concat([cells(1, 2), cells(30, 40, field="y")])
    predicted = pd.concat([cells(2, 1), cells(0, 30, 40, field="y")])
    known = pd.concat(
        [
            outcomes(("found", 1, 2), ("found", 2, 1)),
            outcomes(("found", 1, 2), ("found", 2, 3), ("false positive", None, 1), field="y"),
        ]
    )
    assert agreement(annotated, predicted, known)["ratio"]["concordance"] == pytest.approx(1)


@settings(max_examples=20)
@given(measured())
def test_agreement_is_always_numbers(tables):
    for measures in agreement(*tables).values():
        assert np.isfinite([*measures.values()]).all()
        assert -1 - 1e-9 <= measures.get("concordance", 0) <= 1 + 1e-9


@settings(max_examples=20)
@given(st.lists(VALUES, min_size=2))
def test_identical_cells_agree_perfectly_and_cost_nothing(values):
    same = cells(*values)
    for measures in agreement(same, same, found(len(values))).values():
        perfect = {"n": measures["n"], "bias": 0, "low": 0, "high": 0, "concordance": 1}
        assert measures == pytest.approx({name: perfect[name] for name in measures})
    assert not cost(same, same, found(len(values)))[["difference", *PARTS]].to_numpy().any()


def parts_of(annotated: pd.DataFrame, predicted: pd.DataFrame, known: pd.DataFrame) -> dict:
    """Return the row of the cost of one read-out, without names."""
    (row,) = cost(annotated, predicted, known).query("readout == 'ratio'").to_dict("records")
    return {name: row[name] for name in row if name not in ("field", "readout")}


NOTHING = dict.fromkeys(PARTS, 0)


@pytest.mark.parametrize(
    "annotated, predicted, known, part",
    [
        ((1, 3), (2, 6), [("found", 1, 1), ("found", 2, 2)], "outlines"),
        (
            (1, 1, 4),
            (4, 4),
            [("merged", 1, None), ("merged", 2, None), ("found", 3, 1), ("merging", None, 2)],
            "merged_and_split",
        ),
        ((2, 4), (4,), [("missed", 1, None), ("found", 2, 1)], "missed"),
        ((2,), (2, 4), [("found", 1, 1), ("false positive", None, 2)], "false_positives"),
    ],
)
def test_a_single_kind_of_error_costs_all_of_the_difference(annotated, predicted, known, part):
    first, second = np.mean(annotated), np.mean(predicted)
    assert parts_of(cells(*annotated), cells(*predicted), outcomes(*known)) == pytest.approx(
        {"annotated": first, "predicted": second, "difference": second - first}
        | NOTHING
        | {part: second - first}
    )


def test_two_kinds_of_error_share_the_difference_as_the_mean_of_both_orders():
    """Cells 0 and 6: 0 is missed, and 12 is a false positive. The mean goes from 3 to 9.

    First missed: 3, 6, 9, so 3 each. First false positive: 3, 6, 9 again, 3 each.
    With 3 and 6 instead, 3 missed: 4.5, 6, 9 or 4.5, 7, 9: missed 1.5 or 2, the other 3 or 2.5.
    """
    known = outcomes(("missed", 1, None), ("found", 2, 1), ("false positive", None, 2))
    parts = parts_of(cells(0, 6), cells(6, 12), known)
    assert parts["missed"] == pytest.approx(3) and parts["false_positives"] == pytest.approx(3)
    parts = parts_of(cells(3, 6), cells(6, 12), known)
    assert parts["missed"] == pytest.approx(1.75)
    assert parts["false_positives"] == pytest.approx(2.75)


def test_if_no_cell_is_left_between_two_steps_the_annotated_mean_stays():
    """The only cell, 2, is missed, and 8 is a false positive: 2, none, 8 or 2, 5, 8."""
    known = outcomes(("missed", 1, None), ("false positive", None, 1))
    parts = parts_of(cells(2), cells(8), known)
    assert parts["missed"] == pytest.approx((0 + 3) / 2)
    assert parts["false_positives"] == pytest.approx((6 + 3) / 2)


def test_cells_without_a_value_and_ignored_cells_take_no_part():
    known = outcomes(("found", 1, 1), ("found", 2, 2), ("ignored", None, 3))
    parts = parts_of(cells(1, np.nan), cells(1, 3, 100), known)
    assert parts == pytest.approx(
        NOTHING | {"annotated": 1, "predicted": 2, "difference": 1, "outlines": 1}
    )


def test_a_well_has_the_cells_of_all_its_fields():
    """Fields with 1 and 3 cells weigh as their cells do. A field of unknown well is in none."""
    tables = [cells(1), cells(5, 5, 5, field="y"), cells(9, field="z", well=None)]
    annotated = pd.concat(tables)
    predicted = pd.concat([cells(2), *tables[1:]])
    known = pd.concat([found(1), found(3, field="y"), found(1, field="z")])
    assert cost(annotated, predicted, known)["field"].unique().tolist() == ["x", "y", "z"]
    row = cost(annotated, predicted, known, by="well").query("readout == 'ratio'")
    assert row["well"].tolist() == ["A01"]
    assert row[["annotated", "predicted", "outlines"]].to_numpy().tolist() == [[4, 4.25, 0.25]]


@pytest.mark.parametrize("by", ["field", "well"])
@settings(max_examples=20)
@given(measured())
def test_parts_of_the_cost_add_up_to_the_difference_of_the_means(by, tables):
    annotated, predicted, known = tables
    rows = cost(annotated, predicted, known, by)
    means = (
        cells.melt([by], list(READOUTS), "readout").groupby([by, "readout"])["value"].mean()
        for cells in (annotated, predicted)
    )
    both = pd.concat(means, axis=1, keys=["annotated", "predicted"]).dropna()
    assert len(rows) == len(both)
    for row in rows.to_dict("records"):
        expected = both.loc[(row[by], row["readout"])]
        assert row["annotated"] == pytest.approx(expected["annotated"], abs=1e-6)
        assert row["predicted"] == pytest.approx(expected["predicted"], abs=1e-6)
        assert row["difference"] == pytest.approx(row["predicted"] - row["annotated"], abs=1e-6)
        assert sum(row[part] for part in PARTS) == pytest.approx(row["difference"], abs=1e-6)


def with_recall(*parts: float, count: int = 400) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return cells of rising value, of which these parts are found, in stretches of one length."""
    size = count // len(parts)
    rows = [
        ("found" if cell < part * size else "missed", number * size + cell + 1, None)
        for number, part in enumerate(parts)
        for cell in range(size)
    ]
    return cells(*range(count)), outcomes(*rows)


def test_recall_by_quarter_by_hand():
    annotated, known = with_recall(0, 0.5, 1, 1, count=8)
    recalls = recall_by_quarter(annotated, known)
    assert recalls["readout"].unique().tolist() == list(QUARTERS)
    rows = recalls.query("readout == 'area_um2'").drop(columns="readout")
    assert rows.to_numpy().tolist() == [
        [1, 0, 1, 2, 0, 0],
        [2, 2, 3, 2, 1, 0.5],
        [3, 4, 5, 2, 2, 1],
        [4, 6, 7, 2, 2, 1],
    ]


@settings(max_examples=20)
@given(measured())
def test_each_cell_with_a_value_is_in_one_quarter(tables):
    annotated, _, known = tables
    recalls = recall_by_quarter(annotated, known)
    for name, rows in recalls.groupby("readout"):
        assert rows["cells"].sum() == annotated[name].notna().sum()
        assert (rows["low"] <= rows["high"]).all() and rows["quarter"].is_monotonic_increasing
        assert (rows["high"].to_numpy()[:-1] < rows["low"].to_numpy()[1:]).all()
    assert recall_sentence(recalls).endswith(".")


def test_the_sentence_tells_who_is_missed():
    recalls = recall_by_quarter(*with_recall(0.31, 0.8, 0.85, 0.9))
    assert recall_sentence(recalls) == (
        "Of the dimmest quarter in red, 31 % are found, of the others 85 %: the cells that are "
        "found are not a random sample."
    )


@pytest.mark.parametrize(
    "parts, count", [((0.8, 0.81, 0.8, 0.82), 400), ((0, 1, 1, 1), 8), ((1, 1, 1, 1), 400)]
)
def test_the_sentence_claims_no_difference_that_chance_may_have_made(parts, count):
    said = recall_sentence(recall_by_quarter(*with_recall(*parts, count=count)))
    assert "nothing shows that" in said and "random" not in said


@pytest.mark.parametrize("values", [[], [1], [2, 2, 2]])
def test_where_no_quarters_can_be_compared_the_sentence_says_so(values):
    recalls = recall_by_quarter(cells(*values), found(len(values)))
    assert recall_sentence(recalls).startswith("There are too few annotated cells")


def test_without_cells_there_is_nothing_to_compare():
    nothing = cells(), cells(), partners("x", *np.zeros((2, 3, 3), np.uint16))
    assert agreement(*nothing) == {name: {"n": 0} for name in READOUTS}
    assert cost(*nothing).empty
