"""Evaluation: a model segments prepared folders, and its masks are scored."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from cellular.errors import InputError, raise_faults
from cellular.fields import check_pairs, read_pair
from cellular.files import check_apart, check_new, whole, write_json
from cellular.images import write_labels
from cellular.overlays import draw, encode
from cellular.params import SegmentParams
from cellular.scores import score_field, summarise
from cellular.segmentation import load_model, segment

log = logging.getLogger(__name__)


def evaluate(
    test_dirs: Sequence[Path],
    model_path: Path,
    output_dir: Path,
    params: SegmentParams,
    *,
    predictions_dir: Path | None = None,
    overlays_dir: Path | None = None,
    overlays: int = 2,
    device: torch.device,
    force: bool = False,
) -> dict[str, dict]:
    """Score a model on prepared folders.

    Writes `<output_dir>/<name of folder>_eval.json` for each folder; the predicted label maps to
    `<predictions_dir>/pred_<field>.png` (default: `<output_dir>/images`), and the first `overlays`
    fields of each folder, drawn, to `<overlays_dir>` (default: `<output_dir>/overlays`).

    Returns
    -------
    dict
        By name of folder, what `cellular.scores.summarise` returns.

    Raises
    ------
    InputError
        One error that tells all faults of the data, before the network is run.
    """
    output_dir = Path(output_dir)
    predictions_dir = Path(predictions_dir or output_dir / "images")
    overlays_dir = Path(overlays_dir or output_dir / "overlays")
    names = [Path(folder).resolve().name for folder in test_dirs]
    reports = {name: output_dir / f"{name}_eval.json" for name in names}
    if len(reports) < len(names):
        raise InputError(f"two of the folders {', '.join(names)} have one name, and so one result")
    check_apart([predictions_dir, overlays_dir], [*test_dirs, model_path])
    for path in (*reports.values(), predictions_dir, overlays_dir):
        check_new(path, force)
    pairs = {name: check_pairs(folder) for name, folder in zip(names, test_dirs, strict=True)}
    fields = Counter(pair.field for group in pairs.values() for pair in group)
    raise_faults(
        output_dir,
        [f"{field} is in more than one folder" for field, times in fields.items() if times > 1],
    )
    model = load_model(model_path, device)
    diameter = params.diameter or float(model.diam_labels)
    log.info("%s on %s, cells of %.4g pixels", model_path, device, diameter)

    summaries = {}
    with (
        whole(predictions_dir) as predictions,
        whole(overlays_dir) as pictures,
        tqdm(total=len(fields), desc="evaluate", unit="field", leave=False) as bar,
    ):
        predictions.mkdir()
        pictures.mkdir()
        for name, group in pairs.items():
            scores = []
            for number, pair in enumerate(group):
                image, truth = read_pair(pair)
                predicted = segment(model, image, params)
                write_labels(predictions / f"pred_{pair.field}.png", predicted)
                if number < overlays:
                    drawn = encode(draw(image, truth, predicted))
                    (pictures / f"{name}_{pair.field}.png").write_bytes(drawn)
                scores.append(score_field(pair.field, truth, predicted))
                bar.update()
            summaries[name] = summarise(scores)
    for name, summary in summaries.items():
        write_json(reports[name], summary)
    return summaries
