"""The summary of a run: the few numbers by which DVC compares one run with another.

All scores, several hundred for each model and split, are in `<split>_eval.json`.
"""

from cellular.base.params import flat
from cellular.scoring.scores import Place, nested

DIGITS = 4  # decimals; one more cell found changes the third decimal of a score
NUMBERS: dict[str, Place] = {
    "ap50": ("objects", "average_precision", "0.5"),
    "ap75": ("objects", "average_precision", "0.75"),
    "f1": ("objects", "f1"),
    "precision": ("objects", "precision"),
    "recall": ("objects", "recall"),
    "panoptic_quality": ("objects", "panoptic_quality"),
    "pixel_f1": ("cell", "f1"),
    "count_error": ("count_error", "relative"),
}
# Where each number of the summary comes from: model, split, and place in <split>_eval.json; or
# `readout`, and the place in readout.json (`cellular.measuring.conclusions`).
SOURCES: dict[Place, Place] = {
    **{
        (split, name): ("finetuned", split, *place)
        for split in ("test", "valid")
        for name, place in NUMBERS.items()
    },
    ("pretrained", "ap50"): ("pretrained", "test", *NUMBERS["ap50"]),
    ("readout", "red_puncta_error"): ("readout", "errors", "finetuned", "red_puncta"),
    ("readout", "red_only_error"): ("readout", "errors", "finetuned", "red_only_fraction"),
    ("readout", "red_puncta_concordance"): (
        *("readout", "agreement", "finetuned", "red_puncta", "concordance"),
    ),
}


def summary_of(scores: dict[str, dict[str, dict]], best_valid_loss: float | None = None) -> dict:
    """Return the summary of a run, or of the part of it that is given.

    Parameters
    ----------
    scores : by model, pretrained or finetuned, and by split, the content of `<split>_eval.json`;
        under `readout` that of readout.json
    best_valid_loss : lowest validation loss of the training

    Returns
    -------
    dict
        `NUMBERS` of the fine-tuned model by split, `pretrained.ap50` of the test split,
        `best_valid_loss`, and `readout`: by how much the fine-tuned model's cells differ from the
        annotated ones in their mean number of red puncta and their mean red-only fraction, and the
        concordance of the puncta of found cells; each rounded to four decimals, without numbers
        that are not given or undefined.
    """
    known = dict(flat(scores))
    names = {place: ".".join(source) for place, source in SOURCES.items()}
    numbers = {place: known[name] for place, name in names.items() if name in known}
    if best_valid_loss is not None:
        numbers["best_valid_loss",] = best_valid_loss
    return nested({place: round(float(value), DIGITS) for place, value in numbers.items()})
