"""segment.py on a zip archive on a server: by ranges, in memory, and after kills the same bytes."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.annotations import ROOT
from helpers.results import results
from helpers.server import serving

from cellular.base.files import REPOSITORY
from cellular.imaging.images import read_image

pytestmark = pytest.mark.slow
COUNT = 200
SIDE = 96  # pixels of a field, a third of the real size: a few cells, and one tile for the network


@pytest.fixture(scope="module")
def archive(sample):
    """Two hundred small fields with three real channels each, named as CELLULAR's."""
    corners = []
    for first in sorted((sample / "channels").glob("*_w1.TIF")):
        waves = np.stack(
            [
                read_image(first.with_name(first.name.replace("_w1", f"_w{wave}")))[::3, ::3]
                for wave in (1, 2, 3)
            ]
        )
        steps = range(0, waves.shape[1] - SIDE, SIDE)
        corners += [waves[:, y : y + SIDE, x : x + SIDE] for y in steps for x in steps]
    assert len(corners) >= COUNT
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as opened:
        for number, waves in enumerate(corners[:COUNT], start=1):
            for wave, plane in enumerate(waves, start=1):
                content = io.BytesIO()
                tifffile.imwrite(content, plane)
                name = f"images/Timepoint_001_220518-ST_C03_s{number}_w{wave}.TIF"
                opened.writestr(name, content.getvalue())
    return stream.getvalue()


@pytest.fixture
def start(archive, model, tmp_path):
    """Start segment.py on the archive; the server tells what was asked of it."""
    with serving({"/images.zip": archive}) as site:
        temporary, repository = tmp_path / "temporary", tmp_path / "repository"
        temporary.mkdir()
        (repository / ".dvc").mkdir(parents=True)
        (repository / ".dvc/config").write_text(f"['remote \"zenodo\"']\n    url = {site.root}\n")
        variables = {
            "CELLULAR_CACHE": str(tmp_path / "cache"),
            REPOSITORY: str(repository),
            "TMPDIR": str(temporary),
        }

        def start(output):
            return subprocess.Popen(
                [
                    *(sys.executable, ROOT / "src/segment.py", "remote://zenodo/images.zip"),
                    *("--model", model, "--output", output),
                ],
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

        start.site = site
        yield start


def on_disk(folder) -> int:
    """Return the bytes in a folder; files may go while it looks."""
    found = 0
    for home, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += (Path(home) / name).stat().st_size
    return found


def test_two_hundred_fields_are_fetched_by_range_and_survive_five_kills(start, archive, tmp_path):
    process = start(tmp_path / "whole")
    peak = 0

    def watch():
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, on_disk(tmp_path))
            time.sleep(0.2)

    watching = threading.Thread(target=watch)
    watching.start()
    out, errors = process.communicate()
    watching.join()
    assert process.returncode == 0, errors
    assert f"in {COUNT} images" in out
    asked = sum(sent for _, _, sent in start.site.parts)
    assert asked <= 1.05 * len(archive)
    assert peak < 200e6
    expected = results(tmp_path / "whole")
    assert len(list((tmp_path / "whole/labels").glob("*.tif"))) == COUNT

    output = tmp_path / "killed"
    for kill in range(1, 6):
        process = start(output)
        enough = kill * COUNT // 7
        while len(list((output / "labels").glob("*.tif"))) < enough and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, process.communicate()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (output / "cells.csv").exists()
    process = start(output)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert results(output) == expected
