"""The table of all cells, joined from the rows of each image's cells."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cellular.base.errors import InputError
from cellular.base.files import remove, whole
from cellular.measuring.tables import COLUMNS

MOST_ROWS = 1_000_000  # of cells.csv; a spreadsheet opens a few more


def write_cells(
    output: Path, parts: Sequence[Path], count: int, most_rows: int = MOST_ROWS
) -> None:
    """Write cells.csv, or cells.parquet if there are more than `most_rows` cells, never both.

    Parameters
    ----------
    output : the folder of all results
    parts : the table of each image's cells, as CSV; images may have other channels, and what an
        image does not have is empty
    count : the number of all cells

    Raises
    ------
    InputError
        If the table cannot be written, or pyarrow is needed and not installed.
    """
    columns = dict.fromkeys(["image", *COLUMNS])
    for part in parts:
        with part.open(encoding="utf-8", newline="") as file:
            columns |= dict.fromkeys(next(csv.reader(file)))
    csv_file, parquet_file = output / "cells.csv", output / "cells.parquet"
    if count > most_rows:
        _write_parquet(parquet_file, parts, list(columns))
        remove(csv_file)
    else:
        _write_csv(csv_file, parts, list(columns))
        remove(parquet_file)


def _write_csv(path: Path, parts: Sequence[Path], columns: Sequence[str]) -> None:
    with whole(path) as staging, staging.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for part in parts:
            with part.open(encoding="utf-8", newline="") as rows:
                writer.writerows(csv.DictReader(rows))


def _write_parquet(path: Path, parts: Sequence[Path], columns: Sequence[str]) -> None:
    """Write the rows of all parts, one part in memory at a time."""
    try:
        import pyarrow as pa  # an optional extra, which only very large tables need
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise InputError(
            f"{path}: so many cells are written as parquet, which needs pyarrow; install it with "
            "`make extras`, and run again (nothing is computed anew)"
        ) from None
    kinds = {"image": pa.string()} | {name: pa.type_for_alias(COLUMNS[name]) for name in COLUMNS}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in columns])
    with whole(path) as staging, ParquetWriter(staging, schema) as writer:
        for part in parts:
            rows = pd.read_csv(
                part,
                dtype={"image": "string"},
                keep_default_na=False,  # an image may be named NA
                na_values=[""],
            ).reindex(columns=list(columns))
            writer.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))
