"""Outputs: apart from the inputs, whole or not at all, and written by one run at a time."""

import signal
import subprocess
import sys

import pytest
from helpers.annotations import ROOT

from cellular.base.errors import InputError
from cellular.base.files import cache_dir, check_apart, together, whole


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder that is empty but for `read/a.png` and a link to `read`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "a.png").write_text("pixels")
    (tmp_path / "link").symlink_to("read")
    return tmp_path


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["read"], "read is the same as read, which this run reads"),
        (["x/../read"], "is the same as read"),
        (["link"], "link is the same as read"),
        (["link/new"], "link/new lies in read"),
        (["read/new/deep"], "lies in read"),
        (["new", "new"], "new is the same as new, which this run writes, too"),
        (["new/images", "new"], "new holds new/images, which this run writes, too"),
        (["new", "new/images"], "new/images lies in new"),
        (["."], "holds read"),
        ([""], "holds read"),
        (["new", ".."], "holds read"),
    ],
)
def test_an_output_is_never_an_input_nor_another_output(folder, outputs, message):
    with pytest.raises(InputError, match=message) as error:
        check_apart(outputs, ["read"])
    assert str(error.value).endswith("; files would be lost; choose another output")


def test_the_working_folder_is_never_replaced(folder):
    with pytest.raises(InputError, match=r"holds the working folder"):
        check_apart([folder], [])


def test_neighbours_are_apart(folder):
    check_apart(["read2", "new/a", "new/b", "rea"], ["read", "new/c"])


def contents(folder):
    """Return the text of each file below a folder by its path, hidden ones too."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def names(folder):
    """Return the names of all that lies in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def fill(staging, text):
    """Write an output: a folder with one file, or a file if its name has a suffix."""
    if not staging.suffix:
        staging.mkdir()
        staging /= "a"
    staging.write_text(text)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("paths", [["file.csv"], ["folder"], ["folder", "deep/er/file.csv"]])
def test_outputs_appear_together_and_leave_nothing_else(tmp_path, paths, old):
    outputs = [tmp_path / name for name in paths]
    for text in ["old", "new"] if old else ["new"]:
        with together(*outputs) as stagings:
            for staging in stagings:
                fill(staging, text)
    assert contents(tmp_path) == {name if "." in name else f"{name}/a": "new" for name in paths}
    assert not [path for path in tmp_path.rglob(".*")]


def test_after_an_error_outputs_are_as_they_were_and_no_folder_is_left(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("old")
    with pytest.raises(KeyError), together(tmp_path / "old", tmp_path / "new" / "b") as stagings:
        for staging in stagings:
            fill(staging, "new")
        raise KeyError
    assert contents(tmp_path) == {"old/a": "old"} and names(tmp_path) == ["old"]


@pytest.mark.parametrize("first", ["old", "old.csv", "new"])
def test_if_one_output_cannot_be_published_none_is(tmp_path, first):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("old")
    (tmp_path / "old.csv").write_text("old")
    with (
        pytest.raises(InputError, match=r"missing: cannot be written \(No such file"),
        together(tmp_path / first, tmp_path / "missing") as stagings,
    ):
        fill(stagings[0], "new")
    assert contents(tmp_path) == {"old/a": "old", "old.csv": "old"}
    assert names(tmp_path) == ["old", "old.csv"]


def test_a_file_never_replaces_a_folder(tmp_path):
    (tmp_path / "mine.d").mkdir()
    (tmp_path / "mine.d" / "a").write_text("mine")
    with (
        pytest.raises(InputError, match=r"mine\.d: cannot be written"),
        whole(tmp_path / "mine.d") as staging,
    ):
        staging.write_text("x")
    assert contents(tmp_path) == {"mine.d/a": "mine"}


def test_a_link_is_replaced_and_what_it_leads_to_is_kept(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a").write_text("far")
    (tmp_path / "link").symlink_to("far")
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("link", "broken"):
        with whole(tmp_path / name) as staging:
            fill(staging, "new")
    assert contents(tmp_path) == {"far/a": "far", "link/a": "new", "broken/a": "new"}


PROGRAM = """
import os, sys
from pathlib import Path
from cellular.base import cli, files

def main(argv):
    with files.together(*map(Path, sys.argv[2:])) as stagings:
        for staging in stagings:
            staging.mkdir()
            (staging / "a").write_text(sys.argv[1])
        print("ready", flush=True)
        sys.stdin.readline()
    return "done"

rename = Path.rename
def killed(path, target):
    rename(path, target)
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), 9)
Path.rename = killed
cli.run(main)
"""


def start(text, *outputs):
    """Start a process that prepares folders, and publishes them once it is given a line."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, text, *map(str, outputs)],
        cwd=ROOT / "src",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_of_two_processes_with_one_output_the_second_is_refused(tmp_path):
    first = start("first", tmp_path / "x", tmp_path / "out")
    assert first.stdout.readline() == "ready\n"
    second = start("second", tmp_path / "y", tmp_path / "out")
    out, err = second.communicate("\n")
    assert (second.returncode, out) == (2, "")
    assert err == (
        f"error: {tmp_path}/out: another process writes it now; wait until it has ended, or choose "
        "another output\n"
    )
    assert first.communicate("\n") == ("done\n", "")
    assert contents(tmp_path) == {"x/a": "first", "out/a": "first"}
    assert names(tmp_path) == ["out", "x"]


@pytest.mark.parametrize("moment", ["prepares", "replaces"])
def test_what_a_killed_process_left_is_put_right_by_the_next(tmp_path, moment):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")
    running = start("killed", tmp_path / "out")
    assert running.stdout.readline() == "ready\n"
    if moment == "prepares":
        running.kill()
    running.communicate("\n")
    assert running.returncode == -signal.SIGKILL
    assert (tmp_path / "out").exists() == (moment == "prepares")
    with pytest.raises(KeyError), whole(tmp_path / "out") as staging:
        assert contents(tmp_path / "out") == {"a": "old"}
        raise KeyError(staging)
    assert contents(tmp_path) == {"out/a": "old"} and names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["file/below", "/proc/x", "/proc/x/y", "n" * 250, "é" * 150, "."])
def test_an_output_that_cannot_be_written_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"cannot be written \(.+\); choose another"), whole(name):
        pytest.fail("it was not refused")
    assert contents(tmp_path) == {"file": "mine"} and names(tmp_path) == ["file"]


def test_a_folder_of_downloads_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match=r"file/cache: .*Not a directory.*CELLULAR_CACHE"):
        cache_dir()
    monkeypatch.delenv("CELLULAR_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match=r"file/.*cellular-experiments: .*CELLULAR_CACHE"):
        cache_dir()
