"""Runs: killed, interrupted, cut in shards, and always the same files in the end."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from helpers.annotations import ROOT, write_png
from helpers.processes import started
from helpers.results import images_of, results, times

from cellular.base.errors import InputError
from cellular.segmenting.outputs import files_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(images, model, tmp_path_factory):
    """The results of one process that nothing disturbs."""
    from segment import main

    output = tmp_path_factory.mktemp("whole") / "out"
    main([str(images), "--model", str(model), "--output", str(output)])
    return results(output)


def wait_for(process, condition):
    while process.is_alive() and not condition():
        time.sleep(0.002)


def arguments(images, model, output, *more):
    return ("segment", images, "--model", model, "--output", output, *more)


def test_a_run_that_is_killed_at_any_moment_ends_with_the_same_bytes(
    images, model, whole, run_script, tmp_path
):
    output = tmp_path / "out"
    for number, pattern in enumerate(
        (
            "labels/image_1.*",
            "rois/image_2.zip",
            ".done/cells/image_3.csv",
            ".done/records/image_4.json",
        )
    ):
        command = arguments(images, model, output)
        process = started(*command, log=tmp_path / f"{number}.log")
        wait_for(process, lambda pattern=pattern: any(output.glob(pattern)))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, (tmp_path / f"{number}.log").read_text()
    before = {name: when for name, when in times(output).items() if "image_1." in name}
    code, _, err = run_script(*arguments(images, model, output))
    assert code == 0, err
    assert results(output) == whole
    assert before.items() <= times(output).items()  # the first image was done once
    assert not [path for path in output.rglob("*.partial")]


def test_an_interrupt_is_one_line_and_the_next_run_goes_on(
    images, model, whole, run_script, tmp_path
):
    output, log = tmp_path / "out", tmp_path / "log"
    process = started(*arguments(images, model, output), log=log)
    wait_for(process, lambda: any(output.glob(".done/records/*.json")))
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    text = log.read_text()
    assert text.endswith("error: interrupted\n") and "Traceback" not in text
    code, _, err = run_script(*arguments(images, model, output))
    assert code == 0 and results(output) == whole, err


def test_shards_side_by_side_and_merged_are_one_run(images, model, whole, run_script, tmp_path):
    output = tmp_path / "out"
    code, out, err = run_script(*arguments(images, model, output, "--shard", "2/3"))
    assert code == 0 and "2 images" in out, err
    assert not (output / "images.csv").exists()
    code, _, err = run_script("segment", "--merge", "--output", output)
    assert code == 2 and "these shards have not ended: 1/3, 3/3" in err
    both = [
        started(*arguments(images, model, output, "--shard", shard), log=tmp_path / shard[0])
        for shard in ("1/3", "3/3")
    ]
    for process in both:
        process.join()
        assert process.exitcode == 0
    code, out, err = run_script("segment", "--merge", "--output", output)
    assert code == 0 and "6 images" in out, err
    assert results(output) == whole
    before = times(output)
    code, _, err = run_script(*arguments(images, model, output))  # without shards: all is there
    assert code == 0, err
    assert {name: when for name, when in before.items() if "shards" not in name} == times(output)


def test_merge_tells_of_images_that_a_shard_could_not_read(images, model, run_script, tmp_path):
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images/image_2.png").write_text("broken")
    output = tmp_path / "out"
    for shard, code in (("1/2", 0), ("2/2", 1)):
        command = arguments(tmp_path / "images", model, output, "--shard", shard)
        assert run_script(*command)[0] == code
    code, _, err = run_script("segment", "--merge", "--output", output)
    assert code == 1 and "image_2.png: no readable image" in err
    assert images_of(output)["image_2"]["error"]


def test_shards_of_another_count_or_of_other_settings_are_not_merged(
    images, model, run_script, tmp_path
):
    output = tmp_path / "out"
    for shard in ("1/3", "1/2", "2/2"):
        assert run_script(*arguments(images, model, output, "--shard", shard))[0] == 0
    assert run_script("segment", "--merge", "--output", output)[0] == 0
    other = ("--shard", "1/2", "--flow_threshold", 0.1, "--force")
    assert run_script(*arguments(images, model, output, *other))[0] == 0
    code, _, err = run_script("segment", "--merge", "--output", output)
    assert code == 2 and "these shards have not ended: 2/2" in err


def test_a_kill_while_settings_change_never_leaves_files_of_one_with_the_record_of_the_other(
    images, model, whole, run_script, tmp_path
):
    output = tmp_path / "out"
    assert run_script(*arguments(images, model, output))[0] == 0
    first = files_of(output, "image_1")["labels"]
    before = first.stat().st_mtime_ns
    other = arguments(images, model, output, "--cellprob_threshold", 2, "--force")
    process = started(*other, log=tmp_path / "log")
    wait_for(process, lambda: first.exists() and first.stat().st_mtime_ns != before)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    code, _, err = run_script(*arguments(images, model, output, "--force"))
    assert code == 0 and results(output) == whole, err


def test_two_processes_never_write_one_output(images, model, run_script, tmp_path):
    output = tmp_path / "out"
    process = started(*arguments(images, model, output), log=tmp_path / "log")
    wait_for(process, lambda: (output / "run.json").exists())
    os.kill(process.pid, signal.SIGSTOP)
    try:
        code, _, err = run_script(*arguments(images, model, output))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert code == 2 and "another process writes it now" in err


def test_a_damaged_run_json_is_told(images, model, run_script, tmp_path):
    output = tmp_path / "out"
    (output / ".done").mkdir(parents=True)
    (output / "run.json").write_text('{"settings": ')
    code, _, err = run_script(*arguments(images, model, output))
    assert code == 2 and "run.json: damaged" in err.splitlines()[-1]


def test_images_without_cells_have_tables_with_names_only(corners, model, run_script, tmp_path):
    write_png(tmp_path / "images/dark.png", corners[0] * 0)
    code, out, err = run_script(*arguments(tmp_path / "images", model, tmp_path / "out"))
    assert code == 0 and "0 cells in 1 images, 1 empty" in out, err
    header, *rows = (tmp_path / "out/cells.csv").read_text().splitlines()
    assert header.startswith("image,label,y,x,area") and not rows


def can_mount():
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(command, capture_output=True).returncode
    )


@pytest.mark.skipif(not can_mount(), reason="a small disk needs Linux's user namespaces")
def test_a_full_disk_is_one_line_and_no_image_is_half_there(images, model, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = (
        f"mount -t tmpfs -o size=150k tmpfs {disk} && {sys.executable} {ROOT}/src/segment.py "
        f"{images} --model {model} --output {disk}/out; code=$?; cd {disk}/out; "
        "find . -type f ! -name '*.lock'; exit $code"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "no space left on device; make room" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and "partial" not in done.stdout
    for folder in ("labels", "rois", "geojson", "overlays"):
        assert done.stdout.count(f"./{folder}/") == done.stdout.count("./labels/")
    assert "images.csv" not in done.stdout


def test_two_sources_of_one_name_are_refused(tmp_path, images):
    from cellular.segmenting.runs import segment_images
    from cellular.segmenting.sources import find

    source = find([images])[0]
    with pytest.raises(InputError, match="image_1: 2 images of this name"):
        segment_images([source, source], None, {})
