"""Bad paths, a full disk or a kill: one clear error at most, no half-written output, no loss."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers.annotations import ROOT, disc

LONG = "n" * 250
BAD_PATHS = [
    ("check_params params.yaml --output params.yaml", "is the same as params.yaml, which this"),
    ("check_params params.yaml --output .", "holds params.yaml, which this run reads"),
    ("check_params params.yaml --output weights/x", "weights/x: cannot be written (Not a dir"),
    (f"check_params {LONG}{LONG}", f"{LONG}: File name too long"),
    ("check_params folder", "folder: Is a directory"),
    ("check_params latin1.yaml", "latin1.yaml is not valid YAML in UTF-8: 'utf-8' codec can't"),
    ("check_params ~nobody-of-this-name/x", "~nobody-of-this-name/x does not exist"),
    ("fetch_weights --model_type {folder}/weights --output weights", "weights is the same as"),
    ("fetch_weights --model_type ~nobody-of-this-name/x --output x", "no user has this name"),
    (f"fetch_weights --model_type {LONG}{LONG} --output x", f"{LONG}: File name too long"),
    (
        f"fetch_weights --model_type scratch --output {LONG}",
        "cannot be written (File name too long",
    ),
    ("fetch_weights --model_type scratch --output /proc/x", "/proc/x: cannot be written"),
    ("fetch_weights --model_type scratch --output /proc/x/y", "/proc/x/y: cannot be written"),
    ("fetch_weights --model_type scratch --output weights/x", "weights/x: cannot be written"),
    ("fetch_weights --model_type scratch --output=", ". holds the working folder"),
    ("fetch_weights --model_type scratch --output folder", "folder: cannot be written (Is a dir"),
    ("fetch_data --dataset local --path {folder}/folder --output_dir folder/x", "folder/x lies in"),
    ("fetch_data --dataset local --path ~nobody-of-this-name --output_dir x", "no user has this"),
]


@pytest.mark.parametrize(("command", "message"), BAD_PATHS)
def test_a_path_that_cannot_be_used_is_one_line_and_nothing_is_lost(
    run_script, tmp_path, monkeypatch, command, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "latin1.yaml").write_text("a: \xe4", encoding="latin-1")
    (tmp_path / "weights").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    before = {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")}
    script, *arguments = command.format(folder=tmp_path).split()
    forced = ["--force"] if script != "check_params" else []
    code, out, err = run_script(script, *arguments, *forced)
    assert (code, out) == (2, "")
    assert message in err and err.splitlines()[-1].startswith("error: ")
    assert {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")} == before


def can_mount() -> bool:
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(
            ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True
        ).returncode
    )


@pytest.mark.skipif(not can_mount(), reason="a small disk needs Linux's user namespaces")
@pytest.mark.parametrize("script", ["prepare_data", "fetch_weights"])
def test_a_full_disk_is_an_error_and_is_left_clean(annotations, script):
    annotations.three_splits()
    disk = annotations.folder / "disk"
    disk.mkdir()
    arguments = {
        "prepare_data": f"-i {annotations.masks} -c {annotations.images} -o {disk}/out",
        "fetch_weights": f"--model_type scratch --output {disk}/out",
    }[script]
    command = (
        f"mount -t tmpfs -o size=40k tmpfs {disk} && "
        f"{sys.executable} {ROOT}/src/{script}.py {arguments}; code=$?; ls -A {disk}; exit $code"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert f"error: {disk}/out: no space left on device; make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout  # the disk is empty again


@pytest.mark.skipif(not can_mount(), reason="a small disk needs Linux's user namespaces")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--model_type scratch --output disk/x",
            "disk/x: cannot be written (Read-only file system)",
        ),
        ("--model_type scellseg --output x", "disk/new: no folder for downloads can be made there"),
    ],
)
def test_a_read_only_disk_is_one_line(tmp_path, arguments, message):
    (tmp_path / "disk").mkdir()
    command = (
        "mount -t tmpfs -o ro tmpfs disk && CELLULAR_CACHE=disk/new "
        f"{sys.executable} {ROOT}/src/fetch_weights.py {arguments}"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.2])
def test_a_killed_stage_leaves_no_half_output_and_can_run_again(annotations, run_script, pause):
    annotations.three_splits()
    for number in range(500):  # enough to be killed in the midst of them
        annotations.object("a_ST_D01_s1", "fed", f"more_{number}", disc(48, 48, 20))
    arguments = ("-i", annotations.masks, "-c", annotations.images, "-o", annotations.out)
    running = subprocess.Popen(
        [sys.executable, ROOT / "src" / "prepare_data.py", *arguments], stderr=subprocess.DEVNULL
    )
    staging = annotations.folder / ".out.partial"
    while not staging.exists() and running.poll() is None:
        time.sleep(0.001)
    time.sleep(pause)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    if annotations.out.exists():  # it finished before the kill, so it must be complete
        assert len(list((annotations.out / "all").rglob("*_masks.png"))) == 3
    code, _, _ = run_script("prepare_data", *arguments, "--force")
    assert code == 0 and not staging.exists()
    assert len(list((annotations.out / "all").rglob("*_masks.png"))) == 3
