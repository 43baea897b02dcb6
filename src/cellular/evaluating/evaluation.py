"""Evaluation: a model segments prepared folders, and its label maps are scored and drawn."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from cellular.base.devices import freed_memory_kept
from cellular.base.errors import Faults, InputError
from cellular.base.files import (
    check_apart,
    check_new,
    digest,
    digest_folder,
    remove,
    together,
    write_json,
)
from cellular.base.provenance import computed_on
from cellular.base.queues import in_order
from cellular.evaluating.overlays import crops, draw, sheet, worst
from cellular.evaluating.params import ANNOTATED, Scoring, SegmentParams
from cellular.imaging.boxes import (
    BOXES,
    box_diameters,
    check_boxes,
    has_boxes,
    load_boxes,
    read_boxes,
)
from cellular.imaging.fields import (
    Pair,
    check_pairs,
    load_pairs,
    read_classes,
    read_excluded,
    read_field,
    read_pair,
)
from cellular.imaging.images import read_labels, write_labels
from cellular.imaging.masks import FAR, median_diameter, relabel
from cellular.imaging.pictures import encode
from cellular.network.segmentation import load_model, precision_of, scale_of, segment_all
from cellular.network.settings import Settings
from cellular.scoring.boxes import table_of_boxes
from cellular.scoring.cells import table_of_cells
from cellular.scoring.results import files_of, write_results
from cellular.scoring.scores import FieldResult, table_of_scores, typical_first
from cellular.scoring.summary import summary_of

if TYPE_CHECKING:  # otherwise cellular.base.compiled has to come before it
    from cellpose.models import CellposeModel

log = logging.getLogger(__name__)

AHEAD = 2  # fields that wait to be scored and saved while the network runs


def evaluate(
    test_dirs: Sequence[Path],
    model_path: Path,
    output_dir: Path,
    params: SegmentParams,
    scoring: Scoring,
    *,
    annotated_dir: Path | None = None,
    predictions_dir: Path | None = None,
    overlays_dir: Path | None = None,
    summary: Path | None = None,
    seed: int = 0,
    device: torch.device,
    force: bool = False,
) -> dict[str, dict]:
    """Score a model on prepared folders, or on folders with boxes (`cellular.imaging.boxes`).

    The cells of `annotated_dir` (default: the first folder) give the diameter `annotated`. For
    each folder it writes

    - to `output_dir` the files of `cellular.scoring.results`;
    - to `predictions_dir` (default: `<output_dir>/images`) the predicted label maps,
      `pred_<field>.png`;
    - to `overlays_dir` (default: `<output_dir>/overlays`) pictures of a typical field and of the
      worst ones, `<name of folder>/<field>.png`, and of the worst cells,
      `<name of folder>_worst_cells.png`;
    - to the file `summary`, if it is given, what `cellular.scoring.summary` takes of the scores.

    All of it appears, or nothing.

    Folders whose name is in `scoring.skip` are not scored, and what an earlier evaluation wrote of
    them is removed.

    Returns
    -------
    dict
        By name of folder, the scores that `cellular.scoring.results.write_results` returns.

    Raises
    ------
    InputError
        Before the network runs, one error with all faults of the data; or if all folders are
        skipped, an output would replace what is there or is read, or another process writes it.
    """
    output_dir = Path(output_dir)
    predictions_dir = Path(predictions_dir or output_dir / "images")
    overlays_dir = Path(overlays_dir or output_dir / "overlays")
    annotated_dir = annotated_dir or test_dirs[0]
    names = [Path(folder).resolve().name for folder in test_dirs]
    if len(set(names)) < len(names):
        raise InputError(
            f"two of the folders have one name ({', '.join(names)}), and their results would have "
            "too; rename one"
        )
    paths = {name: files_of(output_dir, name) for name in names}
    skipped = {name: paths.pop(name) for name in names if name in scoring.skip}
    if not paths:
        raise InputError(
            f"nothing is left to score, as {', '.join(names)} are all in --skip (in params.yaml "
            "eval.skip); take one out of it"
        )
    folders = {name: path for name, path in zip(names, test_dirs, strict=True) if name in paths}
    outputs = [path for files in paths.values() for path in files.values()]
    outputs += [predictions_dir, overlays_dir, *([summary] if summary else [])]
    old = [path for files in skipped.values() for path in files.values()]
    check_apart([*outputs, *old], [*test_dirs, annotated_dir, model_path])
    check_new(*outputs, *old, force=force)
    pairs = _checked(folders, params.channels)
    fields = Counter(pair.field for group in pairs.values() for pair in group)
    Faults(
        f"{field} is in more than one folder" for field, times in fields.items() if times > 1
    ).raise_all(output_dir)
    model = load_model(model_path, device)
    annotated = annotated_diameter(annotated_dir)
    if params.diameter == ANNOTATED and annotated is None:
        raise InputError(
            f"{annotated_dir}: no annotated cell in it, so the diameter is unknown; give a number "
            "of pixels, or none for the diameter that is stored in the weights"
        )
    settings = params.settings(annotated)
    run = _run(model, settings, annotated)

    with together(*outputs) as stagings:
        check_new(*outputs, force=force)  # again: another process may have written them meanwhile
        staged = dict(zip(outputs, stagings, strict=True))
        predictions, pictures = staged[predictions_dir], staged[overlays_dir]
        predictions.mkdir()
        pictures.mkdir()
        every = [pair for group in pairs.values() for pair in group]
        scored = _scored(model, every, settings, scoring, predictions)
        with freed_memory_kept():
            in_turn = iter(list(tqdm(scored, "evaluate", len(every), unit="field", leave=False)))
        results = {name: [next(in_turn) for _ in group] for name, group in pairs.items()}
        for name, group in tqdm(pairs.items(), "draw", unit="folder", leave=False):
            _draw(group, results[name], scoring, predictions, pictures, name)
        scores = {}
        for name, folder in folders.items():
            scores[name] = write_results(
                {kind: staged[path] for kind, path in paths[name].items()},
                results[name],
                seed,
                scoring.unit,
                run=run | {"data": digest_folder(folder)},
            )
        if summary:
            write_json(staged[summary], summary_of({output_dir.name: scores}))
        for path in old:  # they would be taken for scores of this model
            remove(path)
    return scores


def annotated_diameter(folder: Path) -> float | None:
    """Return the diameter of the annotated cells of a prepared folder, in pixels.

    It is the mean over fields of the median, as in training, but fields without cells do not count;
    None if no field has cells. Boxes give a larger one than masks of the same cells.
    """
    faults = Faults()

    def diameter(pair: Pair) -> float | None:
        if _boxed(pair):
            boxes, _ = read_boxes(pair.labels, read_field(pair.image).shape)
            return float(np.median(box_diameters(boxes))) if len(boxes) else None
        labels = relabel(read_labels(pair.labels), pair.labels)
        return median_diameter(labels) if labels.any() else None

    pairs = load_boxes(folder) if has_boxes(folder) else load_pairs(folder)
    found = faults.map(diameter, pairs, "diameters")
    faults.raise_all(folder)
    sizes = [size for size in found if size is not None]
    return float(np.mean(sizes)) if sizes else None


def _run(model: "CellposeModel", settings: Settings, annotated: float | None) -> dict:
    """Return how a model is run, as the results record it; tell where its diameter is doubtful."""
    path, scale = model.pretrained_model, scale_of(model, settings)
    used = float(settings.diameter or model.diam_labels)
    log.info("%s on %s: cells of %.4g px, resized by %.3g", path, model.device, used, scale)
    if annotated and not 1 / FAR <= used / annotated <= FAR:
        log.warning(
            "%s looks for cells of %.4g px, but the annotated ones have %.4g px: scores will be "
            "worse than they could be; --diameter annotated takes the diameter from them",
            *(path, used, annotated),
        )
    return computed_on(model.device, precision_of(model, settings)) | {
        "weights": digest(Path(path)),
        "diameter": {
            "used": used,
            "network": float(model.diam_mean),
            "annotated": annotated,
        },
        "settings": {
            name: value
            for name, value in asdict(settings).items()
            if name not in ("batch_size", "diameter", "precision")  # they are above, or no matter
        },
    }


def _checked(folders: Mapping[str, Path], channels: Sequence[int]) -> dict[str, list[Pair]]:
    """Return the fields of each folder by its name; one `InputError` reports all faults."""
    pairs, faults = {}, Faults()
    for name, folder in folders.items():
        with faults.collect():
            check = check_boxes if has_boxes(folder) else check_pairs
            pairs[name] = check(folder, channels)
    faults.raise_all(" and ".join(map(str, folders.values())))
    return pairs


def _boxed(pair: Pair) -> bool:
    """Tell whether the cells of a field are annotated by boxes."""
    return pair.labels.suffix.lower() == BOXES


def one_line(summary: dict) -> str:
    """Return the main scores of a split in one line, without undefined ones."""
    objects = summary["objects"]
    precision = objects.get("average_precision", {})
    shown = {
        "AP@0.5": precision.get("0.5"),
        "AP@0.75": precision.get("0.75"),
        "F1 of cells": objects.get("f1"),
        "pixel F1 of cell": summary.get("cell", {}).get("f1"),
    }
    scores = [f"{name} {value:.3f}" for name, value in shown.items() if value is not None]
    return ", ".join([*scores, f"{summary['fields']} fields"])


def predicted_path(folder: Path, field: str) -> Path:
    """Return the path of a field's predicted label map."""
    return folder / f"pred_{field}.png"


def _scored(
    model: "CellposeModel",
    pairs: Sequence[Pair],
    settings: Settings,
    scoring: Scoring,
    folder: Path,
) -> Iterator[FieldResult]:
    """Give the result of each field in order; reading, network and scoring run side by side."""

    def score(field: tuple[Pair, np.ndarray]) -> FieldResult:
        pair, predicted = field
        write_labels(predicted_path(folder, pair.field), predicted)
        if _boxed(pair):
            boxes, classes = read_boxes(pair.labels, predicted.shape)
            return FieldResult(
                pair.field, table_of_boxes(pair.field, boxes, predicted, classes), pixels=0
            )
        truth = relabel(read_labels(pair.labels), pair.labels)
        excluded = read_excluded(pair, truth) if scoring.excluded == "ignore" else None
        table, pixels = table_of_cells(
            pair.field, truth, predicted, classes=read_classes(pair), excluded=excluded
        )
        return FieldResult(pair.field, table, pixels)

    maps = segment_all(model, (read_field(pair.image) for pair in pairs), settings)
    return in_order(score, zip(pairs, maps, strict=True), threads=1, ahead=AHEAD)


def _draw(
    pairs: Sequence[Pair],
    results: Sequence[FieldResult],
    scoring: Scoring,
    predictions: Path,
    pictures: Path,
    name: str,
) -> None:
    """Draw a typical field, those with the lowest AP@0.5, and the worst cells of all fields."""
    by_field = {pair.field: pair for pair in pairs}
    cells = {result.field: result.cells for result in results}

    def maps(field: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pair = by_field[field]
        predicted = read_labels(predicted_path(predictions, field)).astype(np.uint16)
        if _boxed(pair):
            return read_field(pair.image), read_boxes(pair.labels, predicted.shape)[0], predicted
        return *read_pair(pair), predicted

    (pictures / name).mkdir()
    precision = table_of_scores(results)["objects", "average_precision", "0.5"]
    for index in typical_first(precision)[: 1 + scoring.overlays]:
        field = results[index].field
        drawn = encode(draw(*maps(field), cells[field]))
        (pictures / name / f"{field}.png").write_bytes(drawn)
    if not scoring.worst_cells:
        return
    chosen = worst(pd.concat(list(cells.values()), ignore_index=True), scoring.worst_cells)
    cut: dict[int, np.ndarray] = {}
    for field, rows in chosen.groupby("field", sort=True):
        cut |= zip(rows.index, crops(*maps(str(field)), rows), strict=True)
    ranked = [cut[index] for index in chosen.index]
    (pictures / f"{name}_worst_cells.png").write_bytes(encode(sheet(ranked)))
