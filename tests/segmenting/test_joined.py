"""The table of all cells: the rows of all images, whichever columns they have."""

import pandas as pd
import pytest

from cellular.measuring.tables import COLUMNS
from cellular.segmenting.joined import write_cells


def part(path, name, cells, *channels):
    """Write the table of an image: all values are 1, and texts have to be quoted."""
    columns = [*COLUMNS, *(f"mean_{channel}" for channel in channels)]
    rows = pd.DataFrame(1, range(cells), columns).assign(touches_border=True, area_um2=None)
    rows.insert(0, "image", name)
    rows.to_csv(path, index=False)
    return path


@pytest.fixture
def parts(tmp_path):
    return [
        part(tmp_path / "1.csv", "a, b", 2, "red"),
        part(tmp_path / "2.csv", "none", 0, "red"),
        part(tmp_path / "3.csv", "NA", 1, "green", "red"),
        part(tmp_path / "4.csv", "007", 1),
    ]


def check(table):
    assert list(table) == ["image", *COLUMNS, "mean_red", "mean_green"]
    assert list(table["image"]) == ["a, b", "a, b", "NA", "007"]
    assert list(table["label"]) == [1, 1, 1, 1] and table["touches_border"].all()
    assert list(table["mean_red"].notna()) == [True, True, True, False]
    assert list(table["mean_green"].notna()) == [False, False, True, False]
    assert table["area_um2"].isna().all()


def test_images_with_other_channels_are_in_one_table(parts, tmp_path):
    write_cells(tmp_path, parts, 4)
    assert not (tmp_path / "cells.parquet").exists()
    text = {"dtype": {"image": str}, "keep_default_na": False, "na_values": [""]}
    check(pd.read_csv(tmp_path / "cells.csv", **text))


def test_many_cells_are_parquet_and_only_that(parts, tmp_path):
    pytest.importorskip("pyarrow", reason="an optional extra")
    write_cells(tmp_path, parts, 4)
    write_cells(tmp_path, parts, 4, most_rows=3)
    assert not (tmp_path / "cells.csv").exists()
    table = pd.read_parquet(tmp_path / "cells.parquet")
    check(table)
    assert table["label"].dtype == "int64" and table["area"].dtype == "int64"
    content = (tmp_path / "cells.parquet").read_bytes()
    write_cells(tmp_path, parts, 4, most_rows=3)
    assert (tmp_path / "cells.parquet").read_bytes() == content
    write_cells(tmp_path, parts, 4, most_rows=4)
    assert not (tmp_path / "cells.parquet").exists() and (tmp_path / "cells.csv").exists()


def test_no_image_is_a_table_of_names(tmp_path):
    write_cells(tmp_path, [], 0)
    assert (tmp_path / "cells.csv").read_text() == ",".join(["image", *COLUMNS]) + "\n"
