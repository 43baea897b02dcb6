"""The documents: their commands work, their links lead somewhere, their figures are committed ones.

Every command in a block of sh or console is either run here, or listed in `ELSEWHERE` with the
reason why not and with the test that runs it, or the like of it, in a smaller form.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest
import yaml
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from helpers.annotations import ROOT
from helpers.label_maps import scored
from helpers.repository import Repository

from cellular.base.params import flat
from cellular.imaging.images import read_image
from cellular.scoring.results import files_of, write_results
from parameters import load_params

README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
MOST_LINES = 160  # of the README


def blocks(document: Path, *languages: str) -> list[str]:
    """Return the fenced blocks of a document that are in one of these languages."""
    found = FENCE.findall(document.read_text(encoding="utf-8"))
    return [body for _, language, body in found if language in languages]


def commands(document: Path) -> list[str]:
    """Return the commands of a document, one line each, without their comments."""
    lines = [line for body in blocks(document, "sh") for line in _whole_lines(body)]
    console = [line for body in blocks(document, "console") for line in _whole_lines(body)]
    lines += [line.removeprefix("$ ") for line in console if line.startswith("$ ")]
    return [" ".join(re.sub(r"(^|\s)# .*", "", line).split()) for line in lines if line.strip()]


def _whole_lines(body: str) -> list[str]:
    return body.replace("\\\n", " ").splitlines()


def prose(document: Path) -> str:
    """Return a document without its fenced blocks."""
    return FENCE.sub("", document.read_text(encoding="utf-8"))


class Elsewhere(NamedTuple):
    """Why a command is not run here, and the code of another test that stands for it."""

    reason: str
    file: str  # below tests/
    code: str


MINUTES = "it takes minutes"
HOURS = "it takes hours"
FIRST_RUN = "it needs a finished run of the pipeline"
SERVER = "it needs a server that tests do not reach"
SEGMENT, RUNS, CLUSTER = (f"segmenting/test_{name}.py" for name in ("segment", "runs", "cluster"))
SEARCH = "experiments/test_search.py"
FOLDS = "experiments/test_crossvalidation.py"
HERE, REPRO, EXPERIMENTS, GRID, SHARING, EXPORT = (
    "test_docs.py",
    "pipeline/test_repro.py",
    "pipeline/test_experiments.py",
    "experiments/test_grid.py",
    "pipeline/test_sharing.py",
    "exporting/test_bioimageio.py",
)
SPLITS = "pipeline/test_splits.py"
SHOW = (
    "dvc exp show --md --drop '.*' "
    "--keep 'Experiment|valid.ap50|best_valid_loss|train.learning_rate'"
)
SPLIT = "-S prepare.val_pattern=_valid -S prepare.test_pattern=_test"
FOUR_GPUS = (
    "fabric run --devices 4 --strategy ddp src/train.py -- --params params.yaml "
    "--train_dir data/prepared/all/train --valid_dir data/prepared/all/valid "
    "--flows_dir data/flows --experiment_name four"
)
ELSEWHERE = {
    command: Elsewhere(*entry)
    for command, *entry in [
        (". .venv/bin/activate", "the helpers do it", "helpers/repository.py", "def environment"),
        ("make repro", MINUTES, REPRO, "def test_the_pipeline_makes_what_it_promises"),
        ("make test", "this test is a part of it", HERE, '"--dry-run"'),
        ("make test-fast", "this test is a part of it", HERE, '"--dry-run"'),
        ("make lint", "it is a step of its own in .ci/run", HERE, '"--dry-run"'),
        ("make format", "it changes files", HERE, '"--dry-run"'),
        ("make venv", MINUTES, HERE, '"--dry-run"'),
        ("make bench", MINUTES, HERE, '"--dry-run"'),
        ("python src/cross_validate.py --by timepoint", HOURS, FOLDS, '"src/cross_validate.py"'),
        ("python src/search.py --workers 2", HOURS, SEARCH, '"src/search.py"'),
        (
            "python src/search.py --study mine --trials 20 --workers 2",
            HOURS,
            SEARCH,
            '"src/search.py"',
        ),
        (
            "optuna-dashboard experiments/mine/journal.log",
            "it runs until it is stopped",
            "experiments/test_studies.py",
            '"optuna-dashboard"',
        ),
        ("make bench BENCH=scores", "its timings are never asserted", HERE, '"--dry-run"'),
        ("make bench BENCH=unseen", MINUTES, "test_benchmarks.py", "benchmarks.NAMES"),
        ("make bench BENCH=puncta", MINUTES, "test_benchmarks.py", "benchmarks.NAMES"),
        ("make bench BENCH=effect", MINUTES, "test_benchmarks.py", "benchmarks.NAMES"),
        (
            "python src/fetch_data.py --dataset unseen --output_dir experiments/unseen",
            SERVER,
            "fetching/test_datasets.py",
            'fetch_dataset("unseen"',
        ),
        (
            "python src/eval.py --test_dir experiments/unseen --model_path models/pretrained "
            "--diameter 121 --output_dir experiments/scores_unseen",
            SERVER,
            "evaluating/test_boxes.py",
            'run_script("eval", "--test_dir"',
        ),
        (
            "python src/cross_validate.py --by timepoint --seeds 0 1 2",
            HOURS,
            FOLDS,
            '"src/cross_validate.py", "--by", "timepoint"',
        ),
        (
            "python src/cross_validate.py -S dataset=cellular --workers 2",
            f"{HOURS}, and {SERVER}",
            FOLDS,
            '"--workers", "2"',
        ),
        (
            "python src/cross_validate.py --by timepoint --seeds 0 1 2 --profile reference "
            "--against cv-timepoint",
            HOURS,
            FOLDS,
            '"--against", "other"',
        ),
        (
            "python src/measure.py data/raw --params params.yaml --dataset sample --judge_all "
            "--annotated data/prepared/all/test data/prepared/all/valid data/prepared/all/train "
            "--labels unseen=experiments/cv-timepoint/predictions "
            "--output experiments/cv-timepoint/readout",
            FIRST_RUN,
            "measuring/test_measure.py",
            '"--judge_all"',
        ),
        ("make bench-tolerance", HOURS, HERE, '"--dry-run"'),
        ("pre-commit install", "it writes into .git", HERE, "def test_the_hooks_are_those_of"),
        ("dvc repro", FIRST_RUN, REPRO, ".repro("),
        ("git add dvc.lock metrics", FIRST_RUN, "pipeline/test_committed.py", "dvc.lock"),
        (
            "dvc exp run -n mirrored -S eval.augment=true",
            FIRST_RUN,
            EXPERIMENTS,
            '"exp", "run", "-n"',
        ),
        ("dvc params diff", FIRST_RUN, EXPERIMENTS, '"params", "diff"'),
        ("dvc metrics diff", FIRST_RUN, EXPERIMENTS, '"metrics", "diff"'),
        (
            "python src/compare.py --experiments HEAD mirrored",
            FIRST_RUN,
            EXPERIMENTS,
            '"src/compare.py", "--experiments", "HEAD"',
        ),
        (
            "dvc exp run -n mirrored -S eval.augment=true evaluate@finetuned",
            FIRST_RUN,
            EXPERIMENTS,
            '"exp", "run", "-n"',
        ),
        ("dvc metrics diff HEAD mirrored", FIRST_RUN, EXPERIMENTS, '"metrics", "diff"'),
        (
            "dvc metrics diff --targets metrics/finetuned/test_eval.json",
            FIRST_RUN,
            EXPERIMENTS,
            '"--targets"',
        ),
        (
            "dvc metrics show metrics/finetuned/test_eval.json",
            FIRST_RUN,
            EXPERIMENTS,
            '"metrics", "show"',
        ),
        ("dvc plots diff", FIRST_RUN, EXPERIMENTS, '"plots", "diff"'),
        ("dvc plots show", FIRST_RUN, EXPERIMENTS, '"plots", "show"'),
        (
            "dvc exp run --queue -S 'train.learning_rate=0.0002,0.001,0.002'",
            FIRST_RUN,
            EXPERIMENTS,
            "train.learning_rate=0.0001,0.002",
        ),
        ("dvc queue start -j 1", FIRST_RUN, EXPERIMENTS, '"queue", "start", "-j", "1"'),
        ("dvc queue status", FIRST_RUN, EXPERIMENTS, '"queue", "status"'),
        (SHOW, FIRST_RUN, EXPERIMENTS, '"exp", "show"'),
        ("dvc exp show -A", FIRST_RUN, EXPERIMENTS, '"exp", "show"'),
        ("dvc exp apply mirrored", FIRST_RUN, EXPERIMENTS, '"exp", "apply"'),
        ('git commit -am "Mirrored tiles"', FIRST_RUN, EXPERIMENTS, '"exp", "apply"'),
        ("git checkout .", FIRST_RUN, EXPERIMENTS, "repository.restore()"),
        ("git checkout params.yaml dvc.lock", FIRST_RUN, REPRO, "repository.restore()"),
        ("dvc checkout", FIRST_RUN, REPRO, "repository.restore()"),
        ("dvc push", FIRST_RUN, EXPERIMENTS, '"push"'),
        ("dvc pull", FIRST_RUN, EXPERIMENTS, '"pull"'),
        (
            f"dvc exp run -S dataset=local -S data.path=/path/to/my/folder {SPLIT}",
            FIRST_RUN,
            REPRO,
            "path=str(annotations.folder)",
        ),
        (
            "dvc exp run -S dataset=local -S 'data.path=\"~/my images (2)\"'",
            FIRST_RUN,
            REPRO,
            "path=str(annotations.folder)",
        ),
        (
            "dvc exp run -S dataset=local -S data.path=/path/to/my/folder "
            "-S 'data.colours=[green,red,grey]' -S 'data.ranges=[200..2000,minmax,percentiles]'",
            FIRST_RUN,
            "imaging/test_rendering.py",
            '"--colours", *colours, "--ranges"',
        ),
        (
            "dvc exp run -S dataset=cellular -S prepare.split_by=well "
            "-S 'prepare.test_groups=[C03,I06]' -S 'prepare.valid_groups=[C06,K07]'",
            SERVER,
            SPLITS,
            '"prepare.test_groups=[3]"',
        ),
        (
            "dvc exp run -S dataset=cellular -S prepare.split_by=well "
            "-S 'prepare.test_groups=[C03]'",
            SERVER,
            SPLITS,
            '"prepare.test_groups=[3]"',
        ),
        ("dvc exp run -S 'train.channels=[0,0]'", FIRST_RUN, EXPERIMENTS, '"exp", "run", "-n"'),
        (
            "dvc exp run -S train.all_fields=true",
            MINUTES,
            "training/test_finetuning.py",
            '"--all_fields"',
        ),
        ("dvc exp run -S data.version=2", FIRST_RUN, EXPERIMENTS, '"exp", "run", "-n"'),
        (
            "python src/experiment.py --profile quick -n quick",
            MINUTES,
            "experiments/test_runner.py",
            '"src/experiment.py"',
        ),
        (
            "python src/experiment.py --profile paper -S train.model_type=cyto2",
            f"{HOURS}, and {SERVER}",
            "experiments/test_runner.py",
            '"src/experiment.py"',
        ),
        (
            "dvc exp run -S train.model_type=fine-tuned-cyto2 evaluate@pretrained",
            SERVER,
            EXPERIMENTS,
            '"train.model_type=scratch", "evaluate@pretrained"',
        ),
        ("sh run_experiments.sh", f"{HOURS}, and {SERVER}", GRID, "run_experiments"),
        ("sh run_experiments.sh path/to/masks output-path", HOURS, GRID, "annotations.masks"),
        ("sh run_experiments.sh --profile sample", MINUTES, GRID, "run_experiments"),
        ("make extras", "it is a step of its own in .ci/run", HERE, '"--dry-run"'),
        ("gto register cellular --version v1.0.0", FIRST_RUN, SHARING, '"gto", "register"'),
        ("git push origin HEAD cellular@v1.0.0", FIRST_RUN, SHARING, '"cellular@v1.0.0"'),
        ("gto show", FIRST_RUN, SHARING, '"gto", "show"'),
        (
            "dvc artifacts get /mnt/shared/cellular.git cellular --rev v1.0.0 "
            "--out models/of-the-team",
            FIRST_RUN,
            SHARING,
            '"artifacts", "get"',
        ),
        ("dvc exp push origin mirrored", FIRST_RUN, SHARING, '"exp", "push"'),
        ("dvc exp list origin", FIRST_RUN, SHARING, '"exp", "list"'),
        ("dvc exp pull origin mirrored", FIRST_RUN, SHARING, '"exp", "pull"'),
        ("mkdir -p ~/.cellpose/models", FIRST_RUN, SHARING, '".cellpose/models"'),
        (
            "cellpose --add_model models/finetuned/cellular_finetuned",
            FIRST_RUN,
            SHARING,
            '"--add_model"',
        ),
        (
            "cellpose --dir images --pretrained_model models/finetuned/cellular_finetuned --chan 0 "
            "--chan2 0 --diameter 120.4 --no_resample --save_tif",
            MINUTES,
            "reporting/test_card.py",
            "def test_the_cards_settings_in_plain_cellpose",
        ),
        ("python src/export.py models/finetuned", FIRST_RUN, EXPORT, 'run_script("export"'),
        ("bioimageio test exported", FIRST_RUN, EXPORT, 'bioimageio("test", package)'),
        ("bioimageio package exported cellular.zip", FIRST_RUN, EXPORT, 'bioimageio("package"'),
        ("python src/segment.py my_images", FIRST_RUN, SEGMENT, 'run_script("segment"'),
        (
            "python src/segment.py my_images --model models/finetuned --output segmented",
            FIRST_RUN,
            SEGMENT,
            'run_script("segment"',
        ),
        (
            "python src/measure.py my_channels --labels segmented --red 1 --green 2 "
            "--pixel_size 0.17",
            FIRST_RUN,
            "measuring/test_measure.py",
            '"--labels", tmp_path / "segmented"',
        ),
        (
            "python src/segment.py remote://zenodo/images.zip --fields 'Timepoint_001_*_C03_*' "
            "--output fed",
            SERVER,
            "segmenting/test_remote.py",
            '"remote://zenodo/images.zip"',
        ),
        (
            "parallel python src/segment.py my_images --shard {}/4 ::: 1 2 3 4",
            FIRST_RUN,
            RUNS,
            '"--shard", shard',
        ),
        (
            "sbatch --array=1-20 --wrap "
            "'python src/segment.py my_images --shard $SLURM_ARRAY_TASK_ID/20'",
            "it needs Slurm",
            RUNS,
            '"--shard", shard',
        ),
        ("python src/segment.py --merge --output segmented", FIRST_RUN, RUNS, '"--merge"'),
        (
            "python src/segment.py my_images --scheduler local",
            FIRST_RUN,
            CLUSTER,
            "def test_a_local_cluster",
        ),
        ("dask scheduler", FIRST_RUN, CLUSTER, "dask_{program}"),
        (
            "CUDA_VISIBLE_DEVICES=0 dask worker tcp://host:8786 --nthreads 1 --resources GPU=1",
            "it needs a GPU",
            CLUSTER,
            "dask_{program}",
        ),
        (
            "python src/segment.py my_images --scheduler tcp://host:8786",
            FIRST_RUN,
            CLUSTER,
            "def test_a_worker_that_is_killed",
        ),
        (FOUR_GPUS, "it needs four GPUs", "training/test_finetuning.py", '"--devices", "2"'),
    ]
}

# Run in this order, in a copy of the repository that has itself for origin.
IN_A_COPY = [
    'git commit -am "The run of my machine"',
    "python src/check_reproduction.py",
    "python src/check_reproduction.py --revision HEAD~1",
    "dvc remote add -d team /mnt/shared/cellular",
    "git add .dvc/config",
    'git commit -m "Remote of our team"',
    "git push",
    "dvc remote modify --local zenodo url http://mirror.example.org/cellular",
    "dvc remote modify --local simula url /data/simula",
]


def script_calls() -> list[str]:
    """Return the calls of scripts that a user makes without DVC, in the order of docs/training."""
    return [line for line in commands(ROOT / "docs/training.md") if line.startswith("python src/")]


def test_every_command_is_run_here_or_elsewhere():
    written = {command for document in DOCUMENTS for command in commands(document)}
    covered = {*ELSEWHERE, *IN_A_COPY, *script_calls()}
    assert written - covered == set(), "run these, or list them with a reason"
    assert covered - written == set(), "these are in no document any more"


@pytest.mark.parametrize(
    "place", sorted({(entry.file, entry.code) for entry in ELSEWHERE.values()})
)
def test_what_is_not_run_here_is_run_in_a_smaller_form_elsewhere(place):
    file, code = place
    assert code in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_commands_of_git_and_dvc_that_need_no_data_work(tmp_path):
    repository = Repository.copy(tmp_path / "clone")
    (tmp_path / "origin.git").mkdir()
    repository.git("init", "-q", "--bare", cwd=tmp_path / "origin.git")
    repository.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    repository.git("push", "-q", "-u", "origin", "main")
    summary = repository.json("metrics/summary.json")
    summary["best_valid_loss"] += 10
    (repository.folder / "metrics/summary.json").write_text(json.dumps(summary))
    said = {command: repository.run("bash", "-c", command) for command in IN_A_COPY}
    assert "eproduced: all" in said["python src/check_reproduction.py"]
    before = said["python src/check_reproduction.py --revision HEAD~1"]
    assert re.search("Not reproduced: .*best_valid_loss", before)
    assert "/mnt/shared/cellular" in (repository.folder / ".dvc/config").read_text()
    mirrors = (repository.folder / ".dvc/config.local").read_text()
    assert "mirror.example.org" in mirrors and "/data/simula" in mirrors


def test_make_knows_every_target_that_the_documents_name():
    written = {line for document in DOCUMENTS for line in commands(document)}
    for line in sorted(line for line in written if line.startswith("make ")):
        done = subprocess.run(
            [*line.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"


def test_dvc_reads_every_parameter_as_it_is_written_and_all_are_valid(
    run_script, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    for command in sorted(text for text in ELSEWHERE if text.startswith("dvc exp run")):
        overrides = [value for flag, value in pairwise(shlex.split(command)) if flag == "-S"]
        for experiment in get_hydra_sweeps({"params.yaml": overrides}):
            shutil.copyfile("params.yaml", tmp_path / "params.yaml")
            apply_overrides(tmp_path / "params.yaml", experiment["params.yaml"])
            params = load_params(tmp_path / "params.yaml")
            if "my images" in command:
                assert params.data.path == "~/my images (2)"


@pytest.mark.slow
def test_the_scripts_work_alone_as_written(run_script, annotations, pretrained, monkeypatch):
    for field in ("a_train", "b_train", "c_valid", "d_test"):
        annotations.field(field, live=6)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["train"] |= {
        "n_epochs": 1,
        "images_per_epoch": 2,
        "valid_images": 1,
        "batch_size": 2,
        "model_type": str(pretrained),
    }
    (annotations.folder / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(annotations.folder)
    said = {}
    for command in script_calls():
        _, script, *arguments = command.split()
        code, said[script], errors = run_script(Path(script).stem, *arguments)
        assert code == 0, f"{command}: {errors}"
    assert "| AP@0.5 " in said["src/compare.py"]
    for written in (
        "models/mine",
        "models/mine_last",
        "train.csv",
        "scores/mine/test_eval.json",
        "scores/mine/test_cells.csv",
        "scores/mine/images/pred_d_test.png",
        "scores/mine/overlays",
    ):
        assert (Path("experiments/mine") / written).exists(), written


def test_the_weights_are_used_in_cellpose_as_written(pieces, pretrained, tmp_path, monkeypatch):
    (code,) = blocks(ROOT / "docs/training.md", "python")
    (image,) = re.findall(r'imread\("(.*)"\)', code)
    (tmp_path / image).parent.mkdir(parents=True)
    (piece,) = (path for path in (pieces / "valid").glob("*.png") if "masks" not in path.name)
    cv2.imwrite(str(tmp_path / image), read_image(piece)[..., ::-1])
    (tmp_path / "models/finetuned").mkdir(parents=True)
    shutil.copyfile(pretrained, tmp_path / "models/finetuned/cellular_finetuned")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert names["masks"].shape == read_image(piece).shape[:2]


def test_a_score_is_added_to_the_table_as_written(tmp_path):
    formula, name = blocks(ROOT / "docs/architecture.md", "py")
    shutil.copytree(ROOT / "src", tmp_path / "src")
    for file, added in (("scores", formula), ("results", name)):
        path = tmp_path / f"src/cellular/scoring/{file}.py"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        (place,) = (n for n, line in enumerate(lines) if re.match(r' .*"aggregated_jaccard"', line))
        lines.insert(place + 1, " " * (len(lines[place]) - len(lines[place].lstrip())))
        lines[place + 1] += added.strip() + "\n"
        path.write_text("".join(lines), encoding="utf-8")
    truth = [[1, 1, 0, 0, 2, 2, 2]]
    write_results(files_of(tmp_path / "metrics/good", "test"), [scored(truth, truth)], seed=0)
    write_results(
        files_of(tmp_path / "metrics/poor", "test"), [scored(truth, [[1, 1, 0, 0, 0, 2, 2]])], 0
    )
    table = subprocess.run(
        [sys.executable, "src/compare.py", "--models", "poor", "good", "--splits", "test"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = (line for line in table.splitlines() if "Dice" in line)
    assert [cell.strip() for cell in line.split("|")[2:4]] == ["0.889", "1.000"]  # 8 of 9 pixels


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a document."""
    headings = re.findall(r"^#+ +(.*)", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_and_paths_lead_somewhere(document):
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", prose(document)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(path), f"{target}: no such heading"
        if path.suffix == ".py" and re.fullmatch(r"`\w+`", text):
            assert re.search(rf"\b{text.strip('`')}\b", path.read_text(encoding="utf-8")), text
    for path in re.findall(r"`((?:src|conf|docs|tests)/[\w./-]*)`", prose(document)):
        assert (ROOT / path).exists(), f"{path}: no such file"


def test_the_readme_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def committed(path: str, revision: str = "HEAD") -> str:
    """Return a file as it was committed."""
    return Repository(ROOT).git("show", f"{revision}:./{path}")


def test_the_readme_shows_scores_of_a_committed_run():
    text = README.read_text(encoding="utf-8")
    shown = text.split("<!-- scores:")[1].split("-->\n")[1].split("\n\n")[0].splitlines()
    versions = Repository(ROOT).git("log", "--format=%H", "--", "metrics/comparison.md").split()
    assert any(
        set(shown) <= set(committed("metrics/comparison.md", version).splitlines())
        for version in versions
    ), "copy these lines from metrics/comparison.md anew"


def test_the_last_run_has_the_readmes_scores_but_for_rounding():
    # Whoever commits the run of another machine has other digits in metrics, not another README.
    text = README.read_text(encoding="utf-8")
    found = json.loads(committed("metrics/summary.json"))["test"]
    allowed = dict(flat(json.loads(committed("metrics/tolerances.json"))["tolerances"]))
    for title, name in (
        ("AP@0.5", "ap50"),
        ("AP@0.75", "ap75"),
        ("precision of cells", "precision"),
        ("recall of cells", "recall"),
        ("pixel F1 of cell", "pixel_f1"),
    ):
        (line,) = (line for line in text.splitlines() if line.startswith(f"| {title} "))
        finetuned = float(line.split("|")[3])
        assert abs(finetuned - found[name]) <= allowed.get(f"test.{name}", 0) + 0.0005 + 1e-9, line
        if name in ("recall", "precision"):
            assert f"{100 * finetuned:.0f} %" in text


def test_the_readmes_table_of_stages_is_that_of_the_pipeline():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    table = re.findall(r"^\| `(\w+)` \|(.*)\|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert [stage for stage, _ in table] == list(stages)
    for stage, cells in table:
        described = stages[stage].get("do", stages[stage])
        script, package, _, written = (re.findall(r"`([^`]+)`", cell) for cell in cells.split("|"))
        assert set(script) | {f"src/cellular/{name}" for name in package} <= set(described["deps"])
        outputs = [out if isinstance(out, str) else next(iter(out)) for out in described["outs"]]
        models = stages[stage].get("foreach", {"": None})
        found = {re.sub(r"\$\{(key|item)\}", key, out) for out in outputs for key in models}
        assert set(written) <= found


def test_the_hooks_are_those_of_make_lint():
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    hooks = [hook for repo in yaml.safe_load(text)["repos"] for hook in repo["hooks"]]
    entries = " ".join(hook["entry"] for hook in hooks)
    for tool in ("ruff check", "ruff format", "mypy", "lint-imports"):
        assert f".venv/bin/{tool}" in entries


def test_licence_version_and_citation_fit_together():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert f'version = "{citation["version"]}"' in project
    assert f'license = "{citation["license"]}"' in project
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("BSD 3-Clause License")
    for reference in citation["references"]:
        assert reference["doi"] in (ROOT / "docs/data.md").read_text(encoding="utf-8")
