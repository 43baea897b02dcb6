"""Evaluation: a model segments prepared folders, and its label maps are scored and drawn."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from cellpose.models import CellposeModel
from tqdm import tqdm

from cellular.base.errors import Faults, InputError
from cellular.base.files import check_apart, check_new, whole
from cellular.base.queues import in_order
from cellular.evaluating.overlays import crops, draw, encode, sheet, worst
from cellular.evaluating.params import Scoring
from cellular.imaging.fields import Pair, check_pairs, read_classes, read_excluded, read_pair
from cellular.imaging.images import read_labels, write_labels
from cellular.network.segmentation import load_model, scale_of, segment_pairs
from cellular.network.settings import Settings
from cellular.scoring.cells import table_of_cells
from cellular.scoring.results import files_of, write_results
from cellular.scoring.scores import FieldResult, table_of_scores

log = logging.getLogger(__name__)

AHEAD = 2  # fields that wait to be scored and saved while the network runs


def evaluate(
    test_dirs: Sequence[Path],
    model_path: Path,
    output_dir: Path,
    settings: Settings,
    scoring: Scoring,
    *,
    predictions_dir: Path | None = None,
    overlays_dir: Path | None = None,
    seed: int = 0,
    device: torch.device,
    force: bool = False,
) -> dict[str, dict]:
    """Score a model on prepared folders.

    For each folder it writes

    - to `output_dir` the files of `cellular.scoring.results`;
    - to `predictions_dir` (default: `<output_dir>/images`) the predicted label maps,
      `pred_<field>.png`;
    - to `overlays_dir` (default: `<output_dir>/overlays`) pictures of the worst fields,
      `<name of folder>/<field>.png`, and of the worst cells, `<name of folder>_worst_cells.png`.

    Returns
    -------
    dict
        By name of folder, the scores that `cellular.scoring.results.write_results` returns.

    Raises
    ------
    InputError
        Before the network runs, one error with all faults of the data.
    """
    output_dir = Path(output_dir)
    predictions_dir = Path(predictions_dir or output_dir / "images")
    overlays_dir = Path(overlays_dir or output_dir / "overlays")
    names = [Path(folder).resolve().name for folder in test_dirs]
    if len(set(names)) < len(names):
        raise InputError(
            f"two of the folders have one name ({', '.join(names)}), and their results would have "
            "too; rename one"
        )
    files = [path for name in names for path in files_of(output_dir, name).values()]
    outputs = [*files, predictions_dir, overlays_dir]
    check_apart(outputs, [*test_dirs, model_path])
    for path in outputs:
        check_new(path, force)
    pairs = _checked(names, test_dirs)
    fields = Counter(pair.field for group in pairs.values() for pair in group)
    Faults(
        f"{field} is in more than one folder" for field, times in fields.items() if times > 1
    ).raise_all(output_dir)
    model = load_model(model_path, device)
    scale = scale_of(model, settings)
    log.info("%s on %s; images are resized by %.3g for the network", model_path, device, scale)

    with whole(predictions_dir) as predictions, whole(overlays_dir) as pictures:
        predictions.mkdir()
        pictures.mkdir()
        every = [pair for group in pairs.values() for pair in group]
        scored = _scored(model, every, settings, scoring, predictions)
        in_turn = iter(list(tqdm(scored, "evaluate", len(every), unit="field", leave=False)))
        results = {name: [next(in_turn) for _ in group] for name, group in pairs.items()}
        for name, group in tqdm(pairs.items(), "draw", unit="folder", leave=False):
            _draw_worst(group, results[name], scoring, predictions, pictures, name)
    return {name: write_results(output_dir, name, of, seed) for name, of in results.items()}


def _checked(names: Sequence[str], folders: Sequence[Path]) -> dict[str, list[Pair]]:
    """Return the fields of each folder by its name; one `InputError` reports all faults."""
    pairs, faults = {}, Faults()
    for name, folder in zip(names, folders, strict=True):
        with faults.collect():
            pairs[name] = check_pairs(folder)
    faults.raise_all(" and ".join(map(str, folders)))
    return pairs


def one_line(summary: dict) -> str:
    """Return the main scores of a split in one line, without undefined ones."""
    objects = summary["objects"]
    precision = objects.get("average_precision", {})
    shown = {
        "AP@0.5": precision.get("0.5"),
        "AP@0.75": precision.get("0.75"),
        "F1 of cells": objects.get("f1"),
        "pixel F1 of cell": summary["cell"]["f1"],
    }
    scores = [f"{name} {value:.3f}" for name, value in shown.items() if value is not None]
    return ", ".join([*scores, f"{summary['fields']} fields"])


def predicted_path(folder: Path, field: str) -> Path:
    """Return the path of a field's predicted label map."""
    return folder / f"pred_{field}.png"


def _scored(
    model: CellposeModel, pairs: Sequence[Pair], settings: Settings, scoring: Scoring, folder: Path
) -> Iterator[FieldResult]:
    """Give the result of each field in order; reading, network and scoring run side by side."""

    def score(field: tuple[Pair, tuple[np.ndarray, np.ndarray]]) -> FieldResult:
        pair, (truth, predicted) = field
        excluded = read_excluded(pair, truth) if scoring.excluded == "ignore" else None
        write_labels(predicted_path(folder, pair.field), predicted)
        table, pixels = table_of_cells(
            pair.field, truth, predicted, classes=read_classes(pair), excluded=excluded
        )
        return FieldResult(pair.field, table, pixels)

    maps = segment_pairs(model, pairs, settings)
    return in_order(score, zip(pairs, maps, strict=True), threads=1, ahead=AHEAD)


def _draw_worst(
    pairs: Sequence[Pair],
    results: Sequence[FieldResult],
    scoring: Scoring,
    predictions: Path,
    pictures: Path,
    name: str,
) -> None:
    """Draw the fields with the lowest AP@0.5, and the worst cells of all fields."""
    by_field = {pair.field: pair for pair in pairs}
    cells = {result.field: result.cells for result in results}

    def maps(field: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, truth = read_pair(by_field[field])
        return image, truth, read_labels(predicted_path(predictions, field)).astype(np.uint16)

    (pictures / name).mkdir()
    precision = table_of_scores(results)["objects", "average_precision", "0.5"]
    for index in np.argsort(precision, kind="stable")[: scoring.overlays]:  # NaN comes last
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
