"""The command line: parameters as flags and from a file, errors of one line, broken pipes."""

import contextlib
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from helpers.annotations import ROOT

from cellular.base import cli
from cellular.base.errors import InputError
from cellular.evaluating.params import Scoring, SegmentParams
from cellular.fetching.params import DataParams
from cellular.preparing.params import PrepareParams
from cellular.training.params import SavingParams, TrainParams


def parse(models, *arguments):
    parser = cli.Parser(None)
    parser.parameters(*models)
    args = parser.parse_args([str(argument) for argument in arguments])
    return tuple(cli.parameters(model, args) for model in models)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), True),
        (("--use_sgd",), True),
        (("--use_sgd", "true"), True),
        (("--use_sgd", "false"), False),
        (("--use_sgd", "False"), False),
        (("--no-use_sgd",), False),
    ],
)
def test_use_sgd_false_is_false(arguments, expected):
    (params,) = parse([TrainParams], "--learning_rate", "1e-3", *arguments)
    assert params.use_sgd is expected


def test_flags_take_lists_and_none():
    assert parse([PrepareParams], "--formats", "png", "tif")[0].formats == ["png", "tif"]
    assert parse([SegmentParams], "--diameter", "None")[0].diameter is None
    assert parse([SegmentParams], "--diameter", "12.5")[0].diameter == 12.5


def test_a_value_may_begin_with_a_dash_and_a_digit():
    data = parse([DataParams], "--colours", "red", "green", "--ranges", "-5..10", "-7.5..-2")[0]
    assert data.ranges == ["-5..10", "-7.5..-2"]
    assert parse([SegmentParams], "--cellprob_threshold", "-1.5")[0].cellprob_threshold == -1.5


@pytest.mark.parametrize("seed", ["-1", "x", "1.5", str(2**31), "9" * 5000])
def test_a_seed_that_no_generator_takes_is_refused(run_script, seed):
    code, _, err = run_script("fetch_weights", "--model_type", "scratch", "--seed", seed)
    assert code == 2 and "argument --seed: expected a" in err


@pytest.fixture
def params_file(tmp_path):
    path = tmp_path / "mine.yaml"
    content = {
        "save_every": 3,
        "seed": 7,
        "train": {"n_epochs": 9, "learning_rate": 0.05, "channels": [2, 3]},
        "eval": {"augment": True, "overlays": 4, "seed": 1},
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_script_reads_its_sections_of_the_file(params_file):
    train, saving = parse([TrainParams, SavingParams], "--params", params_file)
    assert (train.n_epochs, train.learning_rate, train.channels) == (9, 0.05, [2, 3])
    assert train.batch_size == 8  # the default, as it is not in the file
    assert saving.save_every == 3
    segment, scoring = parse([SegmentParams, Scoring], "--params", params_file)
    assert segment.augment and scoring.overlays == 4


def test_flags_override_the_file(params_file):
    flags = ("--n_epochs", 2, "--channels", 0, 0, "--save_every", 1)
    train, saving = parse([TrainParams, SavingParams], "--params", params_file, *flags)
    assert (train.n_epochs, train.learning_rate, train.channels) == (2, 0.05, [0, 0])
    assert saving.save_every == 1


def test_a_wrong_value_in_the_file_is_named_with_the_file(params_file):
    params_file.write_text("train: {n_epochs: 0}\n")
    with pytest.raises(InputError, match=r"mine\.yaml: n_epochs: .*greater than or equal to 1"):
        parse([TrainParams], "--params", params_file)


@pytest.mark.parametrize("text", ["seed: 1\n", "train: 5\n", "train:\n"])
def test_a_file_without_the_section_is_refused(params_file, text):
    params_file.write_text(text)
    with pytest.raises(InputError, match=r"mine\.yaml: expected a section train"):
        parse([TrainParams], "--params", params_file)


@pytest.mark.parametrize("script", ["fetch_data", "fetch_weights", "prepare_data", "train", "eval"])
def test_help_shows_every_flag(run_script, script):
    code, out, _ = run_script(script, "--help")
    assert not code and out.startswith("usage:")
    assert "--force" in out and "--params" in out


def test_a_reader_that_leaves_early_causes_no_traceback():
    # As in `compare.py | head`, but with the reader gone before anything is printed.
    program = "from cellular.base import cli; cli.run(lambda argv: 'a line\\n' * 100_000)"
    running = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT / "src",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running.stdout.close()
    assert (running.stderr.read(), running.wait()) == ("", 0)
    running.stderr.close()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("x.png: no image"), 2, "error: x.png: no image\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (PermissionError(13, "Permission denied", "x"), 2, "error: x: Permission denied; choose"),
        (
            OSError(36, "File name too long", "x" * 300),
            2,
            f"error: {'x' * 300}: File name too long",
        ),
        (OSError("no name\nand two lines"), 2, "error: no name and two lines\n"),
        (
            OSError(28, "No space left on device"),
            2,
            "error: No space left on device; make room for",
        ),
    ],
)
def test_errors_of_the_user_have_one_line_and_an_exit_code(capsys, error, code, message):
    def main(argv):
        raise error

    with pytest.raises(SystemExit) as left:
        cli.run(main)
    err = capsys.readouterr().err
    assert left.value.code == code and err.startswith(message) and err.count("\n") == 1


def test_an_interrupt_while_libraries_are_imported_is_one_line():
    script = [sys.executable, ROOT / "src" / "eval.py", "--help"]
    for _ in range(5):  # on a busy machine, the signal may come too late
        pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
        running = subprocess.Popen(script, text=True, **pipes)
        process = psutil.Process(running.pid)
        with contextlib.suppress(psutil.Error):  # it has ended
            while not any("numpy" in used.path for used in process.memory_maps()):
                time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        shown = running.communicate()
        if running.returncode != 0:
            break
    assert shown == ("", "error: interrupted\n")
    assert running.returncode == cli.EXIT_INTERRUPTED
