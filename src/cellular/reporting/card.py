"""Card: what a model is, for people (README.md) and for programs (settings.json)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cellular.base.errors import InputError
from cellular.base.files import check_new, digest, together
from cellular.base.params import flat
from cellular.imaging.fields import load_pairs, read_field
from cellular.imaging.normalisation import brightness, saturated
from cellular.models.folders import CARD, SETTINGS, Record, Seen, record_text
from cellular.reporting.comparison import splits_trained_on
from cellular.reporting.templates import template
from cellular.scoring.results import REPORTED, read_json, read_scores

NORMALISATION = {"percentiles": [1, 99], "of": "each image", "by": "Cellpose's default"}
SHOWN = (  # scores of the card's table
    ("objects", "average_precision", "0.5"),
    ("objects", "average_precision", "0.75"),
    ("objects", "precision"),
    ("objects", "recall"),
    ("objects", "f1"),
    ("cell", "f1"),
)


def write_card(
    weights: Path,
    metrics_dir: Path,
    model: str,
    splits: Sequence[str],
    images_dir: Path,
    params: Mapping[str, Any],
    sources: Sequence[Mapping[str, str]],
    revision: Mapping[str, str],
    *,
    training_file: Path | None = None,
    pixel_size: float | None = None,
    force: bool = False,
) -> Record:
    """Write settings.json and the card README.md beside weights, and return the settings.

    The settings are those with which the model was scored.

    Parameters
    ----------
    weights : file whose folder becomes that of the model
    metrics_dir : has the folder `model` with scores that src/eval.py wrote
    splits : whose scores the card shows
    images_dir : prepared folder of the training images, whose looks the settings record
    params : the parameters of the run
    sources : data and starting weights, from `cellular.fetching.sources.sources_of`
    revision : date and code of the run
    training_file : train.json of the training (default: the one in `metrics_dir`); if it is that of
        other weights, or missing, these were not trained here
    pixel_size : edge of a pixel of the training images in µm, if it is known

    Raises
    ------
    InputError
        If the scores are not those of these weights, or the files exist.
    """
    outputs = [weights.with_name(SETTINGS), weights.with_name(CARD)]
    check_new(*outputs, force=force)
    scores = read_scores(metrics_dir / model, splits)
    run = scores[splits[0]]["run"]
    if not weights.is_file():
        raise InputError(f"{weights}: no such weights file")
    sha256 = digest(weights)
    if run.get("weights") != sha256:
        raise InputError(
            f"{weights}: not the weights that were scored in {metrics_dir / model}; evaluate them "
            "with src/eval.py first"
        )
    training_file = training_file or metrics_dir / "train.json"
    training = _training(training_file, sha256)
    try:
        of_training = {"training": training["run"], "train": params["train"]} if training else {}
        record = Record.model_validate(
            {
                "weights": {"file": weights.name, "sha256": sha256},
                "normalisation": NORMALISATION,
                "diameter": run["diameter"]["used"],
                "network_diameter": run["diameter"]["network"],
                "seen": training and _seen(images_dir, run["diameter"]["annotated"], pixel_size),
                "cellpose": run["versions"]["cellpose"],
                "run": {
                    "code": dict(revision),
                    "dataset": params["dataset"],
                    "model_type": params["train"]["model_type"],
                    **of_training,
                },
                **run["settings"],
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{metrics_dir / model}: scores of another version ({reason}); evaluate again"
        ) from None
    seen_splits = splits_trained_on(training_file) if training else []
    card = _card(record, scores, seen_splits, training, sources)
    with together(*outputs) as stagings:
        for staging, text in zip(stagings, (record_text(record), card), strict=True):
            staging.write_text(text, encoding="utf-8")
    return record


def _training(path: Path, sha256: str) -> dict[str, Any] | None:
    """Return the record of the training that made these weights; None if it made others."""
    found = read_json(path) if path.exists() else {}
    return found if found.get("run", {}).get("weights") == sha256 else None


def _seen(folder: Path, diameter: float, pixel_size: float | None) -> Seen:
    """Return what the images of a prepared folder are like."""
    images = [read_field(pair.image) for pair in load_pairs(folder)]
    levels = [round(brightness(image), 4) for image in images]
    return Seen(
        channels=sorted({image.shape[2] if image.ndim == 3 else 1 for image in images}),
        brightness=(min(levels), max(levels)),
        saturated=max(round(saturated(image), 4) for image in images),
        diameter=diameter,
        pixel_size=pixel_size,
    )


def _card(
    record: Record,
    scores: Mapping[str, dict],
    seen_splits: Sequence[str],
    training: dict[str, Any] | None,
    sources: Sequence[Mapping[str, str]],
) -> str:
    text = template("card.md").render(
        record=record,
        training=training,
        titles=[f"{split}, trained on" if split in seen_splits else split for split in scores],
        fields=[of["fields"] for of in scores.values()],
        drawn=sorted({_drawn(of) for of in scores.values() if _drawn(of)}),
        rows=[(REPORTED[place], [_value(of, place) for of in scores.values()]) for place in SHOWN],
        sources=sources,
        cautions=list(dict.fromkeys(of["publishing"] for of in sources if of["publishing"])),
        citations=list(dict.fromkeys(of["citation"] for of in sources if of["citation"])),
    )
    return f"{text}\n"


def _drawn(scores: Mapping[str, Any]) -> str:
    """Return what was drawn at random for the intervals: cell, field, site or well; or nothing."""
    kinds = [name for name in scores if name.startswith("interval_by_")]
    return kinds[0].removeprefix("interval_by_") if kinds and scores[kinds[0]] else ""


def _value(scores: Mapping[str, Any], place: tuple[str, ...]) -> str:
    """Return a score as the card shows it, with its interval if it has one."""
    known = dict(flat(dict(scores)))
    name = ".".join(place)
    if known.get(name) is None:
        return "–"
    ends = [known.get(f"interval_by_{_drawn(scores)}.{name}.{end}") for end in ("low", "high")]
    shown = [f"{end:.3f}" for end in ends if end is not None]
    return f"{known[name]:.3f}" + (f" ({' to '.join(shown)})" if shown else "")
