"""A full disk or a kill leaves one clear error at most, and no half-written output."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers.annotations import ROOT, disc


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
