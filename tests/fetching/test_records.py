"""Hashes of files whose publishers state none: what is recorded, when, and by whom."""

import io
import subprocess
import sys
import zipfile

import pytest
import yaml
from helpers.annotations import ROOT
from helpers.server import serving

from cellular.base.errors import InputError
from cellular.fetching.archives import check_archive
from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.downloads import fetch
from cellular.fetching.pretrained import pretrained_state
from cellular.fetching.sources import SourceFile
from cellular.network import weights


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """A repository whose remotes simula and cellpose are the folder `away` beside it."""
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
    (tmp_path / "away").mkdir()
    (tmp_path / "repository" / ".dvc").mkdir(parents=True)
    (tmp_path / "repository" / ".dvc" / "config").write_text(
        "".join(
            f"['remote \"{name}\"']\n    url = {tmp_path}/away\n" for name in ("simula", "cellpose")
        )
    )
    return tmp_path / "repository"


def recorded(repository):
    path = repository / "data" / "recorded.yaml"
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def archive(method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as opened:
        opened.writestr("top/images-color/a.jpg", bytes(range(256)) * 40)
        opened.writestr("top/masks/a/fed/1.png", b"mask" * 999)
    return stream.getvalue()


def damaged(content: bytes, how: str) -> bytes:
    middle = len(content) // 3
    return {
        "empty": b"",
        "page": b"<html>blocked</html>",
        "cut": content[: 2 * middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
    }[how]


@pytest.mark.parametrize("how", ["empty", "page", "cut", "flipped"])
@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_the_hash_of_a_damaged_archive_is_never_recorded(tmp_path, repository, how, method):
    file = tmp_path / "away" / "cellular-experiments.zip"
    file.write_bytes(damaged(archive(method), how))
    with pytest.raises(InputError, match=rf"{file}: not the file that is expected; .*damaged"):
        fetch_dataset("cellular-simula", tmp_path / "raw")
    assert not recorded(repository) and not list((tmp_path / "cache").glob("*.zip"))
    file.write_bytes(archive(method))
    assert fetch_dataset("cellular-simula", tmp_path / "raw") == {"images": 1, "masks": 1}
    assert len(recorded(repository)) == 1


@pytest.mark.parametrize("how", ["empty", "page", "cut"])
def test_the_hash_of_damaged_weights_is_never_recorded(tmp_path, repository, how):
    file = tmp_path / "away" / "cyto2torch_0"
    weights.save(weights.random_state(0), file)
    right = file.read_bytes()
    file.write_bytes(damaged(right, how))
    with pytest.raises(InputError, match=rf"{file}: not the file that is expected; .*not weights"):
        pretrained_state("cyto2")
    assert not recorded(repository)
    file.write_bytes(right)
    assert pretrained_state("cyto2").keys() == weights.random_state(0).keys()
    assert len(recorded(repository)) == 1


@pytest.mark.parametrize("kind", ["folder", "nothing", "long"])
def test_where_no_file_is_in_the_folder_of_a_remote_one_line_says_so(tmp_path, run_script, kind):
    if kind == "folder":
        (tmp_path / "away" / "cyto2torch_0").mkdir()
    if kind == "long":
        config = tmp_path / "repository" / ".dvc" / "config"
        config.write_text(config.read_text().replace("/away", f"/{'n' * 300}"))
    code, _, err = run_script(
        "fetch_weights", "--model_type", "cyto2", "--output", tmp_path / "weights"
    )
    assert code == 2 and err.splitlines()[-1].startswith(f"error: {tmp_path}")
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not valid YAML"),
        (b"# \xe4\n", "can't decode byte 0xe4"),
        (b"- 1", "holds list"),
        (b"remote://cellpose/x: 1", "expected a section with names and values"),
    ],
)
def test_records_that_cannot_be_read_are_named(tmp_path, repository, content, message):
    (repository / "data").mkdir()
    (repository / "data" / "recorded.yaml").write_bytes(content)
    weights.save(weights.random_state(0), tmp_path / "away" / "cyto2torch_0")
    with pytest.raises(InputError, match=rf"data/recorded\.yaml.*{message}"):
        pretrained_state("cyto2")


PROGRAM = """
from pathlib import Path
from cellular.base import cli
from cellular.fetching import archives, downloads
from cellular.fetching.sources import SourceFile

def main(argv):
    source = SourceFile(what="x", licence="x", citation="x", url={url!r})
    path = downloads.fetch("x", source, archives.check_archive)
    with downloads.session() as http:
        archives.fetch_members(http, {url!r}, {wanted!r}, Path({folder!r}))
    return str(path)

cli.run(main)
"""


def test_two_processes_that_fetch_at_once_fetch_each_byte_once(tmp_path, repository):
    content, folder = archive(zipfile.ZIP_STORED), tmp_path / "members"
    wanted = ["top/images-color/a.jpg", "top/masks/a/fed/1.png"]
    with serving({"/x.zip": content}) as site:
        site.pause = 0.3
        program = PROGRAM.format(url=site.url, wanted=wanted, folder=str(folder))
        running = [
            subprocess.Popen(
                [sys.executable, "-c", program], cwd=ROOT / "src", stderr=-1, text=True
            )
            for _ in range(2)
        ]
        errors = [process.communicate()[1] for process in running]
        assert [process.returncode for process in running] == [0, 0], errors
        assert sum("another process fetches" in text for text in errors) >= 1
        whole_files = [sent for _, start, sent in site.parts if sent == len(content)]
        assert len(whole_files) == 1
        starts = [start for _, start, sent in site.parts if 1 < sent < len(content)]
        assert starts.count(0) == 1  # the first member, by one of the processes
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert found == wanted
    assert list(recorded(repository)) == [site.url]


def test_without_a_right_file_nothing_is_kept(tmp_path):
    with serving({"/x.zip": b"no archive"}) as site:
        source = SourceFile(what="x", licence="x", citation="x", url=site.url)
        with pytest.raises(InputError, match=rf"{site.url}: not the file that is expected"):
            fetch("x", source, check_archive)
    assert not list((tmp_path / "cache").glob("[!.]*"))
