"""What an evaluation reads and records, and what it leaves behind when it fails."""

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from helpers.annotations import ROOT, SIDE, disc, write_png

from cellular.base.files import digest, digest_folder, together
from cellular.imaging.images import write_labels
from cellular.network import weights


def can_mount() -> bool:
    mount = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return (
        bool(shutil.which("unshare")) and not subprocess.run(mount, capture_output=True).returncode
    )


class Interrupted(Exception):
    pass


@pytest.fixture
def folder(tmp_path):
    """Weights, and prepared folders: test with discs of two sizes, train with larger ones."""
    weights.save(weights.random_state(0), tmp_path / "model")
    for split, radii in (("test", (8, 4)), ("train", (16,)), ("nothing", (0,))):
        for number, radius in enumerate(radii):
            field = f"{split}_{number}"
            labels = np.zeros((SIDE, SIDE), np.uint16)
            for label, place in enumerate(((20, 20), (20, 70), (70, 20)), start=1):
                labels[disc(*place, radius)] = label * (radius > 0)
            write_png(tmp_path / split / f"{field}.png", (labels > 0).astype(np.uint8) * 200)
            write_labels(tmp_path / split / f"{field}_masks.png", labels)
    return tmp_path


@pytest.fixture
def evaluate(run_script, folder):
    def run(*arguments, splits=("test",)):
        dirs = [folder / split for split in splits]
        given = ("--model_path", folder / "model", "--output_dir", folder / "out")
        return run_script("eval", "--test_dir", *dirs, *given, *arguments)

    return run


def scores(folder, split="test"):
    return json.loads((folder / "out" / f"{split}_eval.json").read_text())


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def diameter(radius):
    return np.sqrt(4 * disc(40, 40, radius).sum() / np.pi)


@pytest.mark.parametrize(
    ("arguments", "used", "annotated"),
    [
        (["--diameter", "annotated"], (diameter(8) + diameter(4)) / 2, "used"),
        (["--diameter", "annotated", "--annotated_dir", "train"], diameter(16), "used"),
        (["--diameter", 20, "--annotated_dir", "train"], 20, diameter(16)),
        (["--diameter", "none", "--annotated_dir", "nothing"], 30, None),
    ],
)
def test_results_say_which_diameter_was_used_and_which_is_annotated(
    evaluate, folder, arguments, used, annotated
):
    names = ("train", "nothing")
    code, _, _ = evaluate(*(folder / word if word in names else word for word in arguments))
    assert code == 0
    found = scores(folder)["run"]["diameter"]
    assert found["used"] == pytest.approx(used)
    assert found["annotated"] == (
        found["used"] if annotated == "used" else pytest.approx(annotated)
    )


def test_results_say_how_they_came_about(evaluate, folder):
    arguments = ("--channels", 2, 3, "--precision", "32")
    assert evaluate(*arguments, splits=("test", "train"))[0] == 0
    for split in ("test", "train"):
        run = scores(folder, split)["run"]
        assert (run["device"], run["precision"]) == ("cpu", "32")
        assert run["settings"]["channels"] == [2, 3]
        assert run["weights"] == digest(folder / "model")
        assert run["data"] == digest_folder(folder / split)
        assert run["versions"].keys() == {"cellpose", "numpy", "opencv-python-headless", "torch"}


@pytest.mark.parametrize(
    ("factor", "told"), [(0.6, True), (0.7, False), (1.45, False), (1.6, True)]
)
def test_a_diameter_far_from_the_annotated_one_is_told(evaluate, folder, factor, told):
    code, _, err = evaluate(
        *("--diameter", diameter(16) * factor, "--annotated_dir", folder / "train")
    )
    assert code == 0 and ("but the annotated ones have" in err) == told


def test_without_annotated_cells_their_diameter_is_no_answer_but_scores_are(evaluate, folder):
    code, _, err = evaluate("--diameter", "annotated", splits=("nothing",))
    assert code == 2 and "no annotated cell in it" in err and not (folder / "out").exists()
    assert evaluate("--diameter", "none", splits=("nothing",))[0] == 0
    result = scores(folder, "nothing")
    assert result["counts"]["cells"] == 0 and "recall" not in result["objects"]


@pytest.mark.parametrize("value", [0, -1, 1e-6, 1e30])
def test_weights_with_an_impossible_diameter_are_one_line_and_leave_nothing(
    evaluate, folder, value
):
    state = weights.load(folder / "model")
    weights.save(state | {"diam_labels": state["diam_labels"] * 0 + value}, folder / "model")
    before = left(folder)
    code, out, err = evaluate()
    assert (code, out) == (2, "") and err.count("error: ") == 1 and "model: " in err
    assert left(folder) == before


def test_an_enlargement_that_would_take_hours_is_refused(evaluate, folder):
    before = left(folder)
    code, _, err = evaluate("--diameter", 1)
    assert code == 2 and "give the diameter of your cells in pixels" in err
    assert left(folder) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions_dir", "out/curves"], "curves holds"),
        (["--overlays_dir", "out/test_eval.json"], "is the same as"),
        (["--output_dir", "test"], "lies in"),
        (["--overlays_dir", "train", "--annotated_dir", "train"], "is the same as"),
        (["--summary", "model"], "is the same as"),
        (["--summary", "out/images/summary.json"], "lies in"),
    ],
)
def test_outputs_that_would_replace_what_is_read_or_one_another_are_refused(
    evaluate, folder, arguments, message
):
    before = left(folder)
    given = [word if word.startswith("--") else folder / word for word in arguments]
    code, _, err = evaluate("--force", *given)
    assert code == 2 and message in err
    assert left(folder) == before


@contextmanager
def another_process_writes(path):
    with suppress(Interrupted), together(path):
        yield
        raise Interrupted


@pytest.mark.parametrize(
    "output", ["out/test_eval.json", "out/images", "out/curves/test_ap.csv", "summary.json"]
)
def test_an_evaluation_leaves_alone_what_another_process_writes(evaluate, folder, output):
    assert evaluate("--summary", folder / "summary.json")[0] == 0
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments = ["--diameter", 25, "--force", "--summary", folder / "summary.json"]
    with another_process_writes(folder / output):
        code, out, err = evaluate(*arguments)
    assert (code, out) == (2, "") and "another process writes it now" in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    assert evaluate(*arguments)[0] == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="a small disk needs Linux's user namespaces")
@pytest.mark.parametrize("size", [8, 32])
def test_a_full_disk_is_an_error_and_is_left_clean(folder, size):
    disk = folder / "disk"
    disk.mkdir()
    command = (
        f"mount -t tmpfs -o size={size}k tmpfs {disk} && {sys.executable} {ROOT}/src/eval.py "
        f"--test_dir {folder}/test --model_path {folder}/model --output_dir {disk}/out; "
        f"code=$?; ls -A {disk}; exit $code"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "no space left on device; make room" in done.stderr
    assert "Traceback" not in done.stderr and not done.stdout


@pytest.mark.slow
def test_a_killed_evaluation_is_no_obstacle_to_the_next(evaluate, folder):
    given = ("--test_dir", folder / "test", "--model_path", folder / "model")
    script = (sys.executable, ROOT / "src" / "eval.py", "--output_dir", folder / "out", *given)
    running = subprocess.Popen(script, stderr=subprocess.DEVNULL)
    while not list(folder.glob("out/.images.partial/images/*")) and running.poll() is None:
        time.sleep(0.001)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (folder / "out" / "images").exists()
    assert evaluate()[0] == 0
    assert not list(folder.rglob(".*"))


def test_other_folders_may_be_evaluated_into_the_same_output(evaluate, folder):
    predictions = ("--predictions_dir", folder / "p", "--overlays_dir", folder / "out" / "images")
    assert evaluate(*predictions)[0] == 0
    first = (folder / "out" / "test_eval.json").read_bytes()
    assert evaluate(*predictions, "--force", splits=("train",))[0] == 0
    assert (folder / "out" / "test_eval.json").read_bytes() == first
    assert left(folder / "out" / "images") == ["train", "train_worst_cells.png"]
    hidden = [path for path in folder.rglob(".*")]
    assert not hidden


def test_a_split_that_is_skipped_is_not_scored_and_its_old_scores_go(evaluate, folder):
    splits = ("test", "train")
    assert evaluate("--summary", folder / "summary.json", splits=splits)[0] == 0
    code, out, _ = evaluate(
        *("--summary", folder / "summary.json", "--skip", "test", "valid", "--force"),
        splits=splits,
    )
    assert code == 0 and "train_eval.json" in out and "test_eval.json" not in out
    assert left(folder / "out") == [
        *("curves", "images", "overlays"),
        *("train_cells.csv", "train_eval.json", "train_fields.csv"),
    ]
    assert not list(folder.glob("out/*/*test*"))
    trained = [path.stem for path in (folder / "train").glob("*_masks.png")]
    predicted = [f"pred_{name.removesuffix('_masks')}.png" for name in sorted(trained)]
    assert left(folder / "out" / "images") == predicted


def test_a_split_that_is_skipped_need_not_be_there(evaluate, folder):
    evaluate_train = ("--annotated_dir", folder / "train", "--skip", "test")
    shutil.rmtree(folder / "test")
    assert evaluate(*evaluate_train, splits=("test", "train"))[0] == 0


def test_to_skip_every_split_is_an_error(evaluate, folder):
    code, _, err = evaluate("--skip", "test", "train", splits=("train", "test"))
    assert code == 2 and "nothing is left to score, as train, test are all in --skip" in err
    assert not (folder / "out").exists()


def test_the_summary_is_replaced_only_when_asked(evaluate, folder):
    (folder / "summary.json").write_text("mine")
    code, _, err = evaluate("--summary", folder / "summary.json")
    assert code == 2 and "summary.json exists already" in err
