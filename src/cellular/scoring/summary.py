"""The summary of a run: the numbers by which DVC compares one run with another.

All other scores are in `<split>_eval.json`, several hundred for each model and split.
"""

from cellular.scoring.scores import Place

SPLITS = ("test", "valid")
DIGITS = 4  # one cell more or less changes a score in the third digit
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


def summary_of(scores: dict[str, dict[str, dict]], best_valid_loss: float | None = None) -> dict:
    """Return the summary of a run, or of the part of it that is given.

    Parameters
    ----------
    scores : by model, pretrained or finetuned, and by split, the content of `<split>_eval.json`
    best_valid_loss : lowest validation loss of the training

    Returns
    -------
    dict
        `NUMBERS` of the fine-tuned model by split, `pretrained.ap50` of the test split, and
        `best_valid_loss`, each with four digits; what is not given or not defined is left out.
    """
    summary: dict = {
        split: _numbers(scores["finetuned"][split])
        for split in SPLITS
        if split in scores.get("finetuned", {})
    }
    if "test" in scores.get("pretrained", {}):
        numbers = _numbers(scores["pretrained"]["test"])
        summary["pretrained"] = {name: numbers[name] for name in ("ap50",) if name in numbers}
    if best_valid_loss is not None:
        summary["best_valid_loss"] = round(best_valid_loss, DIGITS)
    return summary


def _numbers(scores: dict) -> dict[str, float]:
    found = {}
    for name, place in NUMBERS.items():
        value = scores
        for key in place:
            value = value.get(key, {})
        if isinstance(value, float | int):
            found[name] = round(float(value), DIGITS)
    return found
