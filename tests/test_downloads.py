"""Downloads from a real server: the right file, or one clear error; never a wrong file."""

import hashlib
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from server import serving

from cellular.archives import extract_matching, read_member
from cellular.downloads import USER_AGENT, fetch
from cellular.errors import InputError
from cellular.sources import SourceFile

CONTENT = bytes(range(256)) * 4096 * 8  # 8 MiB


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def site():
    with serving(CONTENT) as made:
        yield made


def source(site, **changes):
    described = {
        "what": "test",
        "licence": "none",
        "citation": "none",
        "url": site.url,
        "size": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
    }
    return SourceFile(**described | changes)


def test_a_file_is_fetched_once_with_our_name(site):
    path = fetch("x", source(site))
    assert path.read_bytes() == CONTENT
    assert fetch("x", source(site)) == path
    assert len(site.requests) == 1
    assert site.requests[0]["User-Agent"] == USER_AGENT


@pytest.mark.parametrize("faults", [["429"], ["503", "503"], ["reset"], ["redirect"]])
def test_passing_faults_are_waited_out(site, faults):
    site.faults = faults
    assert fetch("x", source(site)).read_bytes() == CONTENT


def test_after_a_reset_only_the_rest_is_fetched(site):
    site.faults = ["reset"]
    fetch("x", source(site))
    assert site.requests[1]["Range"] == f"bytes={len(CONTENT) // 2}-"
    assert site.requests[1]["If-Range"] == site.etag
    assert site.sent == len(CONTENT)


def test_without_ranges_it_starts_again(site):
    site.faults, site.ranges = ["reset"], False
    assert fetch("x", source(site)).read_bytes() == CONTENT


def test_a_file_that_changed_between_two_parts_is_fetched_anew(site, cache):
    site.faults = ["reset"] * 5
    with pytest.raises(InputError, match="broke 5 times"):
        fetch("x", source(site))
    assert list(cache.glob("*.part"))
    site.etag = '"v2"'
    assert fetch("x", source(site)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fault", "told"),
    [("403", "403 .*refuses"), ("404", "404 .*not there any more"), ("html", "a web page came")],
)
def test_what_waiting_does_not_mend_ends_at_once(site, cache, fault, told):
    site.faults = [fault]
    with pytest.raises(InputError, match=told):
        fetch("x", source(site))
    assert len(site.requests) == 1
    assert not (cache / "file.bin").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sha256": "0" * 64}, "sha256 .* expected 000"),
        ({"size": 7}, "8,388,608 bytes, expected 7"),
    ],
)
def test_wrong_bytes_are_never_used(site, cache, changes, told):
    with pytest.raises(InputError, match=told):
        fetch("x", source(site, **changes))
    assert not [path for path in cache.iterdir() if not path.name.endswith(".lock")]


def test_a_damaged_copy_is_fetched_anew(site, cache):
    cache.mkdir()
    (cache / "file.bin").write_bytes(CONTENT[:-1] + b"\0")
    assert fetch("x", source(site)).read_bytes() == CONTENT


def test_no_space_is_told_before_anything_is_written(site, monkeypatch):
    import shutil

    usage = shutil.disk_usage(ROOT)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match="8,388,608 bytes to download, 1,000 free; make room"):
        fetch("x", source(site))
    assert site.sent < len(CONTENT)


def test_an_index_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    packaged = SourceFile(
        what="x", licence="x", citation="x", package="nothing", file="nothing-1.whl"
    )
    monkeypatch.setattr("cellular.downloads.RETRIES", 0)
    with pytest.raises(InputError, match=r"cannot be reached .*PIP_INDEX_URL"):
        fetch("x", packaged)


@pytest.mark.slow
def test_a_killed_download_goes_on(site, cache):
    program = (
        "import sys, time; sys.path.insert(0, 'src')\n"
        "from cellular import downloads\n"
        "from cellular.sources import SourceFile\n"
        "downloads.CHUNK = 1 << 16\n"
        "hold = downloads.tqdm.update\n"
        "downloads.tqdm.update = lambda bar, n: (time.sleep(0.02), hold(bar, n))\n"
        f"downloads.fetch('x', SourceFile(**{source(site).model_dump()!r}))\n"
    )
    part = cache / "file.bin.part"
    for share in (0.2, 0.5):
        running = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
        while running.poll() is None and not (
            part.exists() and part.stat().st_size > share * len(CONTENT)
        ):
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
    assert part.stat().st_size < len(CONTENT) and not (cache / "file.bin").exists()
    assert fetch("x", source(site)).read_bytes() == CONTENT
    assert all("Range" in request for request in site.requests[1:])


def test_members_cannot_leave_their_folder(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../../evil.txt", "x")
    extract_matching(tmp_path / "x.zip", "*.txt", tmp_path / "in" / "here")
    assert [path.name for path in (tmp_path / "in" / "here").iterdir()] == ["evil.txt"]
    assert not (tmp_path / "evil.txt").exists()


def test_damaged_archives_are_told(tmp_path):
    (tmp_path / "x").write_bytes(b"no archive")
    with pytest.raises(InputError, match="no readable archive"):
        extract_matching(tmp_path / "x", "*", tmp_path / "out")
    with pytest.raises(InputError, match="no readable archive"):
        read_member(tmp_path / "x", "member")


def test_a_member_with_another_hash_is_refused(tmp_path):
    import tarfile

    (tmp_path / "file").write_text("x")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "file", "file")
    with pytest.raises(InputError, match=r"file has sha256 .*expected 000"):
        read_member(tmp_path / "x.tar.gz", "file", "0" * 64)
    with pytest.raises(InputError, match="no file other"):
        read_member(tmp_path / "x.tar.gz", "other")
