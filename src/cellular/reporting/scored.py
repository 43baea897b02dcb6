"""Which folder of scores belongs to a model that is given by its folder or its weights."""

from collections.abc import Sequence
from pathlib import Path

from cellular.base.errors import InputError
from cellular.base.files import digest
from cellular.models.folders import open_model
from cellular.scoring.results import files_of, read_scores


def scored_as(model: str, metrics_dir: Path, splits: Sequence[str]) -> str:
    """Return the name of the folder in `metrics_dir` that has the scores of a model.

    Parameters
    ----------
    model : that name itself, or the folder of a model, or a weights file, whose scores are found by
        the hash of the weights

    Raises
    ------
    InputError
        If the weights were not scored there.
    """
    if (metrics_dir / model).is_dir() or not Path(model).exists():
        return model
    sha256 = digest(open_model(Path(model), given=["channels"]).weights)
    for folder in sorted(path for path in metrics_dir.iterdir() if path.is_dir()):
        if files_of(folder, splits[0])["scores"].exists():
            scores = read_scores(folder, splits[:1])[splits[0]]
            if scores["run"].get("weights") == sha256:
                return folder.name
    raise InputError(
        f"{model}: no scores of these weights for {splits[0]} in {metrics_dir}; evaluate them with "
        "src/eval.py"
    )
