"""Runs: a list of images becomes a folder of results, on one process, on many, or in shards.

labels, rois, geojson, overlays   a file for each image (`cellular.segmenting.outputs`)
cells.csv                         a row for each cell (`cellular.segmenting.tables`)
images.csv                        a row for each image: cells, seconds, warnings, error
run.json                          model, settings, versions, command
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from tqdm import tqdm

from cellular.base.errors import InputError
from cellular.base.files import remove, whole, write_json
from cellular.imaging.microscopy import Source
from cellular.segmenting.batches import (
    DONE,
    Job,
    cells_of,
    finished,
    read_record,
    segment_batch,
)

RUN = "run.json"
SHARDS = "shards"  # folder in DONE, with a file for each shard that has come to its end
MOST_ROWS = 1_000_000  # of cells.csv; more are written as cells.parquet
COLUMNS = (
    *("image", "height", "width", "channels", "pixel_size_um", "cells", "diameter"),
    *("seconds", "warnings", "error"),
)

Rows = Iterator[dict[str, Any]]
Work = Callable[[Sequence[Source], Job], Rows]  # `segment_batch`, or what spreads it


def segment_images(
    sources: Sequence[Source],
    job: Job,
    about: dict[str, Any],
    *,
    shard: tuple[int, int] = (1, 1),
    work: Work = segment_batch,
    force: bool = False,
) -> pd.DataFrame:
    """Segment images and write all results to `job.output`; images that are finished are kept.

    Parameters
    ----------
    about : what run.json says of the run, besides the settings: model, versions, command
    shard : number and count; only every count-th image is segmented, and the tables are left to
        `merge`
    work : gives the rows of images as they are done, in any order
    force : replace the results of another model, or of other settings

    Returns
    -------
    the table images.csv; of a shard, its part

    Raises
    ------
    InputError
        If the output holds something else, another process writes it, or the model cannot be used.
    """
    number, count = shard
    with _alone(job.output, f"shard {number} of {count}"):
        _begin(job, about, force)
        mine = sources[number - 1 :: count]
        rows = _rows(mine, job, work)
        if shard == (1, 1):
            return _write_tables(job.output, [rows[source.name] for source in mine])
        names = [source.name for source in mine]
        write_json(job.output / DONE / SHARDS / f"{number}_of_{count}.json", {"images": names})
        return _table(list(rows.values()))


def _rows(sources: Sequence[Source], job: Job, work: Work) -> dict[str, dict[str, Any]]:
    """Return the row of each image by its name; those that are not finished are segmented."""
    bar = tqdm(total=len(sources), desc="segment", unit="image", leave=False)
    rows: dict[str, dict[str, Any]] = {}
    cells = 0
    with bar:
        missing = []
        for source in sources:
            row = finished(source, job)
            if row is None:
                missing.append(source)
            else:
                rows[source.name] = row
        bar.update(len(rows))
        for row in work(missing, job):
            rows[row["image"]] = row
            cells += row.get("cells", 0)
            bar.set_postfix(cells=cells, refresh=False)
            bar.update()
    return {source.name: rows[source.name] for source in sources}


def merge(output: Path) -> pd.DataFrame:
    """Write the tables of a run whose shards have all come to their ends; return images.csv.

    Raises
    ------
    InputError
        If `output` has no shards, or one is missing.
    """
    ended = sorted((output / DONE / SHARDS).glob("*_of_*.json"))
    if not ended:
        raise InputError(f"{output}: no shard has ended there; run them first, with --shard")
    parts = {}
    for path in ended:
        number, _, of = path.stem.partition("_of_")
        parts[int(number), int(of)] = path
    count = max(count for _, count in parts)
    missing = [number for number in range(1, count + 1) if (number, count) not in parts]
    if missing:
        raise InputError(
            f"{output}: of {count} shards these have not ended: {', '.join(map(str, missing))}; "
            "run them again, with the same command"
        )
    with _alone(output, "shard 1 of 1"):
        chosen = [path for (_, of), path in parts.items() if of == count]
        names = sorted(
            name for path in chosen for name in json.loads(path.read_text("utf-8"))["images"]
        )
        records = [read_record(output, name) for name in names]
        lost = [name for name, record in zip(names, records, strict=True) if record is None]
        if lost:
            raise InputError(f"{output}: no record of {lost[0]}; run the shards again")
        return _write_tables(output, [record["row"] for record in records if record])


@contextmanager
def _alone(output: Path, part: str) -> Iterator[None]:
    """Hold a part of a run, so that no other process writes the same."""
    folder = output / DONE
    if output.exists() and not folder.is_dir() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(
            f"{output}: something else is there, no results of src/segment.py; choose another "
            "--output"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{part}.lock", timeout=0):
            yield
    except Timeout:
        raise InputError(
            f"{output}: another process writes it now; wait until it has ended, or choose another "
            "--output"
        ) from None


def _begin(job: Job, about: dict[str, Any], force: bool) -> None:
    """Write run.json, unless the output holds the results of another model or other settings."""
    path = job.output / RUN
    settings = {
        "weights_sha256": job.sha256,
        "settings": asdict(job.settings) | {"channels": list(job.settings.channels)},
        "pixel_size_um": job.pixel_size,
    }
    if path.exists() and not force:
        known = json.loads(path.read_text("utf-8"))
        other = [name for name, value in settings.items() if known.get(name) != value]
        if other:
            raise InputError(
                f"{job.output}: holds results of another model or other settings ({other[0]} "
                "differs); choose another --output, or replace them with --force"
            )
    write_json(path, about | settings)


def _write_tables(output: Path, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Write the tables of all images; return images.csv."""
    table = _table(rows)
    parts = [cells_of(output, name) for name in table.loc[table["error"].isna(), "image"]]
    _write_cells(output, parts, int(table["cells"].sum()))
    with whole(output / "images.csv") as staging:
        table.to_csv(staging, index=False, float_format="%.6g", lineterminator="\n")
    return table


def _table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype(dict.fromkeys(("height", "width", "cells"), "Int64"))


def _write_cells(output: Path, parts: Sequence[Path], count: int) -> None:
    """Join the rows of all images' cells in one table; images may have other channels."""
    columns: dict[str, None] = {}
    for part in parts:
        columns |= dict.fromkeys(pd.read_csv(part, nrows=0).columns)
    csv_file, parquet_file = output / "cells.csv", output / "cells.parquet"
    if count > MOST_ROWS:
        with whole(parquet_file) as staging:
            _write_parquet(staging, parts, list(columns))
        remove(csv_file)
        return
    with whole(csv_file) as staging, staging.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns or ["image", "label"], lineterminator="\n")
        writer.writeheader()
        for part in parts:
            with part.open(encoding="utf-8", newline="") as rows:
                writer.writerows(csv.DictReader(rows))
    remove(parquet_file)


def _write_parquet(path: Path, parts: Sequence[Path], columns: Sequence[str]) -> None:
    """Write the rows of all parts, one part in memory at a time."""
    try:
        import pyarrow as pa  # an optional extra, which only very large tables need
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise InputError(
            f"{path}: a table of more than {MOST_ROWS:,} cells is written as parquet, which needs "
            "pyarrow; install it with `make extras`, and run again (nothing is computed anew)"
        ) from None
    kinds = {"image": pa.string(), "label": pa.int64(), "touches_border": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in columns])
    with ParquetWriter(path, schema) as writer:
        for part in parts:
            rows = pd.read_csv(part, dtype={"image": "string"}).reindex(columns=list(columns))
            writer.write_table(pa.Table.from_pandas(rows, schema, preserve_index=False))
