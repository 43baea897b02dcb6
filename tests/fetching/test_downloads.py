"""Downloads from a real server give the right file or one clear error, never a wrong file."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import yaml
from helpers.annotations import ROOT
from helpers.server import serving

from cellular.base.errors import InputError
from cellular.fetching import downloads
from cellular.fetching.archives import fetch_members
from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.downloads import USER_AGENT, reaching, session
from cellular.fetching.pretrained import pretrained_state
from cellular.fetching.remotes import PREFIX, resolve
from cellular.fetching.sources import SourceFile, catalogue

CONTENT = bytes(range(256)) * 4096 * 8  # 8 MiB


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("cellular.fetching.records.RECORDED", tmp_path / "recorded.yaml")
    monkeypatch.setattr("cellular.fetching.downloads.WAIT", 0.01)
    return tmp_path / "cache"


@pytest.fixture
def site():
    with serving({"/file.bin": CONTENT}) as started:
        yield started


def fetch(name, described, opens=Path.read_bytes):
    return downloads.fetch(name, described, opens)


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


def test_a_file_is_fetched_once_and_we_say_who_we_are(site):
    path = fetch("x", source(site))
    assert path.read_bytes() == CONTENT
    assert fetch("x", source(site)) == path
    assert len(site.requests) == 1
    assert site.requests[0]["User-Agent"] == USER_AGENT


@pytest.mark.parametrize(
    "faults", [["429"], ["503", "503"], ["reset"], ["redirect"], ["reset", "reset", "503"]]
)
def test_passing_faults_are_retried(site, faults):
    site.faults = faults
    assert fetch("x", source(site)).read_bytes() == CONTENT


def test_after_a_reset_only_the_rest_is_fetched(site):
    site.faults = ["reset"]
    fetch("x", source(site))
    assert site.requests[1]["Range"] == f"bytes={len(CONTENT) // 2}-"
    assert site.requests[1]["If-Range"] == site.etag
    assert site.sent["/file.bin"] == len(CONTENT)


@pytest.mark.parametrize("state", [b"", b"{", b"[]", b"\xff\xfe\0", b"URL", b"URL\n", b"URL\n\xff"])
def test_what_a_kill_left_of_the_state_of_a_download_does_no_harm(site, cache, state):
    cache.mkdir()
    (cache / "file-file.bin.part").write_bytes(b"wrong")
    (cache / "file-file.bin.part.from").write_bytes(state.replace(b"URL", site.url.encode()))
    assert fetch("x", source(site)).read_bytes() == CONTENT
    assert not list(cache.glob("*.part*"))


def test_without_ranges_the_download_starts_again(site):
    site.faults, site.ranges = ["reset"], False
    assert fetch("x", source(site)).read_bytes() == CONTENT


def test_a_file_that_changed_between_two_parts_is_fetched_again(site, cache):
    site.faults = ["reset"] * 5
    with pytest.raises(InputError, match=r"broke 5 times"):
        fetch("x", source(site))
    assert list(cache.glob("*.part"))
    site.etag = '"v2"'
    assert fetch("x", source(site)).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fault", "message"),
    [("403", "403 .*refuses"), ("404", "404 .*no longer there"), ("html", "sent a web page")],
)
def test_lasting_faults_are_not_retried(site, cache, fault, message):
    site.faults = [fault]
    with pytest.raises(InputError, match=message):
        fetch("x", source(site))
    assert len(site.requests) == 1
    assert not (cache / "file-file.bin").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "sha256 .* expected 000"),
        ({"size": 7}, "8,388,608 bytes, expected 7"),
    ],
)
def test_wrong_bytes_are_never_used(site, cache, changes, message):
    with pytest.raises(InputError, match=message):
        fetch("x", source(site, **changes))
    assert not [path for path in cache.iterdir() if not path.name.endswith(".lock")]


def test_a_damaged_copy_is_fetched_again(site, cache):
    cache.mkdir()
    (cache / "file-file.bin").write_bytes(CONTENT[:-1] + b"\0")
    assert fetch("x", source(site)).read_bytes() == CONTENT


def test_a_full_disk_is_an_error_before_anything_is_written(site, monkeypatch):
    usage = shutil.disk_usage(ROOT)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match="8,388,608 bytes to write, 1,000 free; make room"):
        fetch("x", source(site))
    assert site.sent.get("/file.bin", 0) < len(CONTENT)


def test_an_index_that_cannot_be_reached_is_an_error(monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    packaged = SourceFile(
        what="x", licence="x", citation="x", package="nothing", file="nothing-1.whl"
    )
    monkeypatch.setattr("cellular.fetching.downloads.RETRIES", 0)
    with pytest.raises(InputError, match=r"cannot be reached .*PIP_INDEX_URL"):
        fetch("x", packaged)


@pytest.fixture
def no_requests(monkeypatch):
    """Fail at any request, to prove that there is none."""

    def send(*args, **kwargs):
        pytest.fail("a request was sent")

    monkeypatch.setattr(requests.Session, "send", send)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def test_a_remote_whose_host_is_not_found_fails_at_once(no_requests, tmp_path, monkeypatch):
    folder = repository_with(tmp_path / "repository", cellpose="https://models.invalid/models")
    monkeypatch.setenv("DVC_ROOT", str(folder))
    with pytest.raises(InputError) as error:
        pretrained_state("cyto2")
    message = str(error.value)
    assert "the host models.invalid was not found, so cyto2 is not fetched" in message
    assert "dvc remote modify --local cellpose url <address or folder>" in message
    assert "train.model_type" in message and "--weights of run_experiments.sh" in message
    assert "kept" not in message and "PIP_INDEX_URL" not in message


def test_a_package_index_whose_host_is_not_found_fails_at_once(no_requests, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:secret@index.invalid/simple")
    with pytest.raises(InputError) as error:
        fetch_dataset("sample", tmp_path / "raw")
    message = str(error.value)
    assert "the host index.invalid was not found, so pixasonics is not fetched" in message
    assert "PIP_INDEX_URL" in message and "secret" not in message
    assert "weights" not in message and "kept" not in message


def test_the_host_of_a_large_archive_is_looked_up_too(no_requests, tmp_path, monkeypatch):
    source = catalogue().files["cellular-images"]
    url = "https://archive.invalid/images.zip"
    with (
        pytest.raises(InputError, match=r"archive\.invalid was not found.*--local zenodo url"),
        reaching(url, "cellular-images", source),
        session() as http,
    ):
        fetch_members(http, url, ["a"], tmp_path)


def test_behind_a_proxy_host_names_are_left_to_the_proxy(monkeypatch, site):
    address = "http://files.invalid/file.bin"
    site.files[address] = CONTENT  # a proxy is asked for the whole address
    monkeypatch.setenv("http_proxy", site.root)
    assert fetch("x", source(site, url=address)).read_bytes() == CONTENT
    monkeypatch.setenv("http_proxy", "proxy.invalid:3128")
    with pytest.raises(InputError, match=r"the host proxy\.invalid was not found"):
        fetch("y", source(site, url="http://files.invalid/other.bin"))


def test_only_what_was_received_is_said_to_be_kept(site, cache, monkeypatch):
    monkeypatch.setattr("cellular.fetching.downloads.RETRIES", 0)
    nowhere = source(site, url="http://127.0.0.1:9/file.bin")
    with pytest.raises(InputError, match="cannot be reached") as error:
        fetch("x", nowhere)
    assert "kept" not in str(error.value)
    site.faults = ["reset"] * 5
    with pytest.raises(InputError, match=r"broke 5 times .* is kept, run again to continue"):
        fetch("x", source(site))
    (part,) = cache.glob("*.part")
    part.unlink()
    site.faults = ["nothing"] * 5  # headers, then not one byte
    with pytest.raises(InputError, match=r"broke 5 times .*; run again later"):
        fetch("x", source(site))


@pytest.mark.slow
def test_a_killed_download_resumes(site, cache):
    program = (
        "import sys, time; sys.path.insert(0, 'src')\n"
        "from cellular.fetching import downloads\n"
        "from cellular.fetching.sources import SourceFile\n"
        "downloads.CHUNK = 1 << 16\n"
        "hold = downloads.tqdm.update\n"
        "downloads.tqdm.update = lambda bar, n: (time.sleep(0.02), hold(bar, n))\n"
        f"downloads.fetch('x', SourceFile(**{source(site).model_dump()!r}), print)\n"
    )
    part = cache / "file-file.bin.part"
    for share in (0.2, 0.5):
        running = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
        while running.poll() is None and not (
            part.exists() and part.stat().st_size > share * len(CONTENT)
        ):
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
    assert part.stat().st_size < len(CONTENT) and not (cache / "file-file.bin").exists()
    assert fetch("x", source(site)).read_bytes() == CONTENT
    assert all("Range" in request for request in site.requests[1:])


def test_a_flipped_bit_is_never_used(site, cache):
    site.faults = ["flip"]
    with pytest.raises(InputError, match="sha256"):
        fetch("x", source(site))
    assert not (cache / "file-file.bin").exists()
    assert fetch("x", source(site)).read_bytes() == CONTENT


def test_without_a_hash_the_first_fetch_is_recorded_and_later_ones_must_match(site, cache):
    unknown = source(site, size=None, sha256=None)
    fetch("x", unknown)
    recorded = yaml.safe_load((cache.parent / "recorded.yaml").read_text())
    assert recorded == {
        site.url: {"size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    }
    shutil.rmtree(cache)
    assert fetch("x", unknown).read_bytes() == CONTENT
    shutil.rmtree(cache)
    site.files["/file.bin"] = CONTENT[::-1]
    with pytest.raises(InputError, match=r"sha256 .* expected"):
        fetch("x", unknown)


@pytest.mark.parametrize(
    ("checksum", "size", "message"),
    [
        (hashlib.md5(CONTENT).hexdigest(), len(CONTENT), None),
        ("0" * 32, len(CONTENT), "md5 .*Zenodo's record says 0000"),
        (hashlib.md5(CONTENT).hexdigest(), 5, "bytes, Zenodo's record says 5"),
    ],
)
def test_a_file_must_have_the_size_and_md5_of_zenodos_record(cache, checksum, size, message):
    listed = {"files": [{"key": "masks.zip", "size": size, "checksum": f"md5:{checksum}"}]}
    files = {
        "/records/7/files/masks.zip": CONTENT,
        "/api/records/7": json.dumps(listed).encode(),
    }
    with serving(files) as site:
        unknown = source(site, size=None, sha256=None)
        if message is None:
            assert fetch("x", unknown).read_bytes() == CONTENT
            return
        with pytest.raises(InputError, match=message):
            fetch("x", unknown)
        assert not list(cache.glob("*masks.zip"))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"null",
        b'{"files": 1}',
        b'{"files": [1]}',
        b'{"files": [{"key": "masks.zip"}]}',
        b'{"files": [{"key": "masks.zip", "size": "x", "checksum": "md5:0"}]}',
        b'{"files": [{"key": "masks.zip", "size": 1, "checksum": null}]}',
    ],
)
def test_a_record_of_zenodo_that_cannot_be_read_is_named(cache, answer):
    files = {"/records/7/files/masks.zip": CONTENT, "/api/records/7": answer}
    with serving(files) as site, pytest.raises(InputError, match="api/records/7: no list of files"):
        fetch("x", source(site, size=None, sha256=None))


def repository_with(folder, **remotes):
    """Write a .dvc/config that names remotes to the folder."""
    (folder / ".dvc").mkdir(parents=True)
    lines = [f"['remote \"{name}\"']\n    url = {url}\n" for name, url in remotes.items()]
    (folder / ".dvc" / "config").write_text("".join(lines))
    return folder


def test_one_command_replaces_a_remote_by_a_mirror(site, tmp_path, monkeypatch):
    folder = repository_with(tmp_path / "repository", zenodo="http://127.0.0.1:9/nowhere")
    monkeypatch.setenv("DVC_ROOT", str(folder))
    away = source(site, url="remote://zenodo/file.bin")
    monkeypatch.setattr("cellular.fetching.downloads.RETRIES", 0)
    with pytest.raises(InputError, match=r"cannot be reached|broke"):
        fetch("x", away)
    dvc = [str(Path(sys.executable).parent / "dvc"), "remote", "modify", "--local", "zenodo", "url"]
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run([*dvc, site.root], cwd=folder, check=True)
    assert fetch("x", away).read_bytes() == CONTENT

    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "other.bin").write_bytes(CONTENT)
    subprocess.run([*dvc, str(mirror)], cwd=folder, check=True)
    assert fetch("y", source(site, url="remote://zenodo/other.bin")).read_bytes() == CONTENT
    with pytest.raises(InputError, match="no such file in the folder"):
        fetch("z", source(site, url="remote://zenodo/missing.bin"))
    with pytest.raises(InputError, match="no remote 'moon' is configured; known: zenodo"):
        fetch("z", source(site, url="remote://moon/missing.bin"))


def test_the_committed_remotes_are_those_of_the_catalogue():
    used = {
        file.url.removeprefix(PREFIX).split("/")[0]
        for file in catalogue().files.values()
        if file.url
    }
    assert used == {"zenodo", "simula", "cellpose", "cellvisionai"}
    for name in used:
        assert resolve(f"remote://{name}/x").startswith("https://")
