"""Means of fields and wells: over cells, sorted, and never of cells without a value."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from cellular.measuring.wells import READOUTS, TEXTS, by_field, by_well

CELLS = pd.DataFrame(
    [
        ("annotated", "b", "B01", "fed", "001", 1, 0.5),
        ("annotated", "a", "B01", "fed", "001", 2, np.nan),
        ("annotated", "a", "B01", "fed", "001", 6, 0.1),
        ("annotated", "c", "A01", "fed", "002", 0, np.nan),
        ("annotated", "d", None, None, None, 4, 1.0),
        ("finetuned", "a", "B01", "fed", "001", 5, np.inf),
    ],
    columns=[*TEXTS, "red_puncta", "red_only_fraction"],
)


def test_the_mean_of_a_field_is_that_of_its_cells_with_a_value():
    table = by_field(CELLS)
    assert table[["source", "field"]].agg(" ".join, axis=1).tolist() == [
        "annotated a",
        "annotated b",
        "annotated c",
        "annotated d",
        "finetuned a",
    ]
    assert table["cells"].tolist() == [2, 1, 1, 1, 1]
    assert table["red_puncta"].tolist() == [4, 1, 0, 4, 5]
    np.testing.assert_equal(table["red_only_fraction"].tolist(), [0.1, 0.5, np.nan, 1, np.nan])
    assert table["ratio"].isna().all()


def test_all_cells_of_a_well_count_alike_and_those_of_no_known_well_do_not():
    table = by_well(CELLS)
    assert table[["source", "well", "timepoint"]].to_numpy().tolist() == [
        ["annotated", "A01", "002"],
        ["annotated", "B01", "001"],
        ["finetuned", "B01", "001"],
    ]
    assert table["fields"].tolist() == [1, 2, 1]
    assert table["cells"].tolist() == [1, 3, 1]
    assert table["red_puncta"].tolist() == [0, 3, 5]
    np.testing.assert_allclose(table["red_only_fraction"], [np.nan, 0.3, np.nan])


def test_wells_without_a_time_point_or_condition_stay():
    cells = CELLS.assign(timepoint=None, condition=["fed", "fed", "fed", None, None, None])
    table = by_well(cells)
    assert table["well"].tolist() == ["A01", "B01", "B01"]
    assert table["condition"].fillna("?").tolist() == ["?", "fed", "?"]
    assert table["cells"].tolist() == [1, 3, 1]


def test_a_table_without_cells_has_the_columns_and_types_of_any_other():
    for means in (by_field, by_well):
        for empty in (CELLS[:0], pd.DataFrame()):
            pd.testing.assert_series_equal(means(empty).dtypes, means(CELLS).dtypes)
            assert means(empty).empty
        assert list(means(CELLS).columns)[-len(READOUTS) :] == list(READOUTS)


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(len(CELLS))))
def test_the_order_of_cells_does_not_matter(order):
    for means in (by_field, by_well):
        pd.testing.assert_frame_equal(means(CELLS.iloc[order]), means(CELLS))
