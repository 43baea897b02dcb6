"""What a search has found: tables, figures and sentences in the folder of its study."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot
import optuna
import pandas as pd
from optuna.trial import TrialState
from optuna.visualization import matplotlib as drawn
from tabulate import tabulate

from cellular.base.files import together, write_json
from cellular.experiments.space import SECONDS
from cellular.experiments.studies import Study, winner_of

BEST = 10  # trials in the printed table
STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def write_findings(study: Study, judged: dict[str, dict[str, float]]) -> str:
    """Write trials.csv, summary.json, study.md and figures; return the text of study.md.

    Parameters
    ----------
    judged : by recipe, default and winner, the numbers of the summary, test groups included
    """
    objective = study.settings.objectives[0]
    best = study.best()
    trials = _table(study)
    importance = _importance(study)
    values = study.settings.draw(best)
    summary = {
        "study": study.folder.name,
        "trials": {name: int((trials["state"] == name).sum()) for name in STATES.values()},
        "hours": round(float(trials["seconds"].sum()) / 3600, 2),
        "best": {"trial": best.number, "values": list(best.values), "parameters": values},
        "front": [trial.number for trial in study.optuna.best_trials],
        "importance": importance,
        "judged": judged,
    }
    lines = [
        _cost(summary, objective.score),
        *_gain(judged, objective.score),
        _take_over(study),
        "",
        tabulate(
            [
                [name, json.dumps(value), f"{importance[name]:.2f}" if name in importance else ""]
                for name, value in values.items()
            ],
            ["parameter", "best value", "importance"],
            tablefmt="github",
            disable_numparse=True,
        ),
        "",
        trials[trials["state"] == "finished"]
        .sort_values(objective.score, ascending=objective.direction == "minimize")
        .head(BEST)
        .drop(columns=["state", "reason"])
        .astype(object)
        .mask(trials.isna(), "")
        .to_markdown(index=False, tablefmt="github", floatfmt=".4g"),
    ]
    text = "\n".join(lines)
    figures = {name: study.folder / f"{name}.png" for name in _figures(study, importance)}
    outputs = [study.folder / name for name in ("trials.csv", "summary.json", "study.md")]
    with together(*outputs, *figures.values()) as stagings:
        trials.to_csv(stagings[0], index=False)
        write_json(stagings[1], summary)
        stagings[2].write_text(f"{text}\n", encoding="utf-8")
        for name, staging in zip(figures, stagings[3:], strict=True):
            _draw(study, name, staging)
    return text


def _table(study: Study) -> pd.DataFrame:
    """Return a row for each trial that has ended: its state, values and parameters."""
    names = [objective.score for objective in study.settings.objectives]
    rows = []
    for trial in study.trials(*STATES):
        # To Optuna, the value of a pruned trial is the last loss that was reported.
        values = trial.values if trial.state == TrialState.COMPLETE else []
        reason = trial.user_attrs.get("pruned", trial.user_attrs.get("failed", ""))
        rows.append(
            {"trial": trial.number, "state": STATES[trial.state], "reason": reason}
            | dict.fromkeys(names)
            | {SECONDS: trial.user_attrs.get(SECONDS)}
            | dict(zip(names, values, strict=False))
            | study.settings.draw(trial)
        )
    return pd.DataFrame(rows)


def _importance(study: Study) -> dict[str, float]:
    """Return how much of the first objective's variance each parameter explains, by fANOVA."""
    if len(study.trials(TrialState.COMPLETE)) < 4:
        return {}
    try:
        found = optuna.importance.get_param_importances(
            study.optuna,
            target=lambda trial: trial.values[0],
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=study.settings.seed),
        )
    except (RuntimeError, ValueError):  # all values are the same
        return {}
    return {name: round(float(value), 3) for name, value in found.items()}


def _cost(summary: dict[str, Any], score: str) -> str:
    counts = summary["trials"]
    return (
        f"{counts['finished']} trials were finished, {counts['pruned']} ended early, "
        f"{counts['failed']} failed; together they took {summary['hours']:.2f} hours of a worker. "
        f"Trial {summary['best']['trial']} is the best, with {score} "
        f"{summary['best']['values'][0]:.4f}."
    )


def _gain(judged: dict[str, dict[str, float]], score: str) -> list[str]:
    """Say what the winner gained where the search looked, and where it did not."""
    name = score.split(".", 1)[-1]
    pairs = [(split, f"{split}.{name}") for split in ("valid", "test")]
    parts = [
        f"{split} {judged['winner'][key] - judged['default'][key]:+.4f} "
        f"({judged['default'][key]:.4f} to {judged['winner'][key]:.4f})"
        for split, key in pairs
        if key in judged["default"] and key in judged["winner"]
    ]
    if not parts:
        return []
    return [
        f"From the default to the winner, {name} changes: {'; '.join(parts)}. The search saw the "
        "validation groups alone; a gain there that is missing in the test is overfitting of the "
        "search."
    ]


def _take_over(study: Study) -> str:
    folds = study.settings.folds
    if folds and len(folds.valid) > 1:
        return "To take the winner over, set the parameters below in params.yaml."
    name = winner_of(study.folder.name, study.best().number)
    return (
        "To take the winner over, set the parameters below in params.yaml; or give "
        f"`dvc exp apply {name}`, which brings its weights, and all that search.yaml changes."
    )


def _figures(study: Study, importance: dict[str, float]) -> list[str]:
    if len(study.settings.objectives) > 1:
        return ["pareto_front"]
    return ["history", "parallel_coordinates", *(["importance"] if importance else [])]


def _draw(study: Study, name: str, path: Path) -> None:
    """Draw a figure with Optuna's functions."""
    names = [objective.score for objective in study.settings.objectives]
    functions: dict[str, Any] = {
        "history": lambda: drawn.plot_optimization_history(study.optuna, target_name=names[0]),
        "parallel_coordinates": lambda: drawn.plot_parallel_coordinate(
            study.optuna, target_name=names[0]
        ),
        "importance": lambda: drawn.plot_param_importances(
            study.optuna,
            evaluator=optuna.importance.FanovaImportanceEvaluator(seed=study.settings.seed),
            target_name=names[0],
        ),
        "pareto_front": lambda: drawn.plot_pareto_front(study.optuna, target_names=names),
    }
    matplotlib.use("agg")
    figure = functions[name]().figure
    figure.set_size_inches(max(8, 1.6 * len(study.settings.space)), 5)
    figure.savefig(path, dpi=120, bbox_inches="tight", format="png")
    matplotlib.pyplot.close(figure)
