"""Runs: a list of images becomes a folder of results, on one process, on many, or in shards.

labels, rois, geojson, overlays   a file for each image (`cellular.segmenting.outputs`)
cells.csv                         a row for each cell (`cellular.measuring.tables`)
images.csv                        a row for each image: cells, seconds, warnings, error
run.json                          model, settings, versions, command
.done                             what is finished (`cellular.segmenting.batches`), and in `shards`
                                  a file for each shard that has ended, with its images
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from tqdm import tqdm

from cellular.base.errors import Faults, InputError
from cellular.base.files import whole, write_json
from cellular.base.params import flat
from cellular.imaging.fields import LONGEST_NAME
from cellular.imaging.microscopy import Source
from cellular.segmenting.batches import DONE, Job, cells_of, finished, read_record, segment_batch
from cellular.segmenting.joined import write_cells

RUN = "run.json"
SHARDS = f"{DONE}/shards"
WAIT = 60  # seconds, for other shards that begin at the same time
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
        If two images have one name, the output holds something else, another process writes it, or
        the model cannot be used.
    """
    _check_names(sources)
    number, count = shard
    mine = sorted(sources, key=lambda source: source.name)[number - 1 :: count]
    with _alone(job.output, f"shard {number} of {count}"):
        _begin(job, about, shard, force)
        rows = _rows(mine, job, work)
        if shard == (1, 1):
            return _write_tables(job.output, rows)
        names = [source.name for source in mine]
        write_json(_ended(job.output, shard), {"images": names})
        return _table(rows)


def _check_names(sources: Sequence[Source]) -> None:
    """Raise `InputError` unless the names of images can be those of their files."""
    faults = Faults()
    for name, count in sorted(Counter(source.name for source in sources).items()):
        if count > 1:
            faults.append(f"{name}: {count} images of this name; segment them to two outputs")
        if max(len(part.encode()) for part in name.split("/")) > LONGEST_NAME:
            faults.append(
                f"{name}: a name of more than {LONGEST_NAME} bytes, to which an ending like "
                ".ome.tif has to be added; rename it"
            )
    faults.raise_all("the names of images")


def _rows(sources: Sequence[Source], job: Job, work: Work) -> list[dict[str, Any]]:
    """Return the row of each image, in order; those that are not finished are segmented."""
    checked = tqdm(sources, "look what is finished", unit="image", leave=False)
    rows = {source.name: finished(source, job) for source in checked}
    missing = [source for source in sources if rows[source.name] is None]
    cells = sum(row["cells"] for row in rows.values() if row)
    done = len(sources) - len(missing)
    # The images a second are those of this run: `initial` does not count.
    with tqdm(None, "segment", len(sources), unit="image", initial=done, leave=False) as bar:
        for row in work(missing, job):
            rows[row["image"]] = row
            cells += row.get("cells", 0)
            bar.set_postfix(cells=f"{cells:,}", refresh=False)
            bar.update()
    return [row for row in rows.values() if row]


def merge(output: Path) -> pd.DataFrame:
    """Write the tables of a run whose shards have all come to their ends; return images.csv.

    Raises
    ------
    InputError
        If `output` has no shards, or one is missing.
    """
    ended = [path.stem.split("_of_") for path in (output / SHARDS).glob("*_of_*.json")]
    if not ended:
        raise InputError(f"{output}: no shard has ended there; run them first, with --shard")
    count = int(ended[0][1])  # the others have the same, see `_begin`
    there = {int(number) for number, _ in ended}
    missing = [f"{number}/{count}" for number in range(1, count + 1) if number not in there]
    if missing:
        raise InputError(
            f"{output}: these shards have not ended: {', '.join(missing)}; give their commands, "
            "with --shard, again"
        )
    with _alone(output, "shard 1 of 1"):
        paths = [_ended(output, (number, count)) for number in range(1, count + 1)]
        parts = [json.loads(path.read_text("utf-8"))["images"] for path in paths]
        records = {name: read_record(output, name) for name in sorted(chain(*parts))}
        lost = [name for name, record in records.items() if record is None]
        if lost:
            raise InputError(f"{output}: no record of {lost[0]}; run the shards again")
        return _write_tables(output, [record["row"] for record in records.values() if record])


def _ended(output: Path, shard: tuple[int, int]) -> Path:
    number, count = shard
    return output / SHARDS / f"{number}_of_{count}.json"


@contextmanager
def _alone(output: Path, part: str) -> Iterator[None]:
    """Hold a part of a run, so that no other process writes the same."""
    folder = output / DONE
    if output.exists() and not folder.is_dir() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(
            f"{output}: something else is there, no results of src/segment.py; choose another "
            "--output"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _held(output, part, 0):
        yield


@contextmanager
def _held(output: Path, what: str, seconds: float) -> Iterator[None]:
    """Hold a lock; `InputError` if another process does not release it within some seconds."""
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(output / DONE / f"{what}.lock", timeout=seconds))
        except Timeout:
            raise InputError(
                f"{output}: another process writes it now; wait until it has ended, or choose "
                "another --output"
            ) from None
        yield


def _begin(job: Job, about: dict[str, Any], shard: tuple[int, int], force: bool) -> None:
    """Write run.json, unless the output holds the results of another model or other settings.

    Shards that have ended are forgotten if they are not part of this run.
    """
    settings = {
        "weights_sha256": job.sha256,
        "pixel_size_um": job.pixel_size,
        "settings": asdict(job.settings) | {"channels": list(job.settings.channels)},
    }
    with _held(job.output, "begin", WAIT):
        other = _differing(job.output / RUN, settings)
        if other and not force:
            raise InputError(
                f"{job.output}: holds results of another model or other settings: "
                f"{', '.join(other)}; choose another --output, or replace them with --force"
            )
        for path in (job.output / SHARDS).glob("*_of_*.json"):
            if other or path == _ended(job.output, shard) or not path.match(f"*_of_{shard[1]}.*"):
                path.unlink()
        write_json(job.output / RUN, about | settings)


def _differing(path: Path, settings: dict[str, Any]) -> list[str]:
    """Return what in a run.json, if there is one, is not as in `settings`."""
    if not path.exists():
        return []
    try:
        known = dict(flat(json.loads(path.read_text("utf-8"))))
    except (ValueError, AttributeError):  # no JSON, no names with values
        raise InputError(
            f"{path}: damaged, so nobody knows which model made these results; choose another "
            "--output"
        ) from None
    return [
        f"{name} is {known.get(name)}, not {value}"
        for name, value in flat(settings)
        if known.get(name) != value and name != "settings.batch_size"  # which is about speed
    ]


def _write_tables(output: Path, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Write the tables of all images; return images.csv."""
    table = _table(rows)
    parts = [cells_of(output, name) for name in table.loc[table["error"].isna(), "image"]]
    write_cells(output, parts, int(table["cells"].sum()))
    with whole(output / "images.csv") as staging:
        table.to_csv(staging, index=False, float_format="%.6g", lineterminator="\n")
    return table


def _table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype(dict.fromkeys(("height", "width", "cells"), "Int64"))
