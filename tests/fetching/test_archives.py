"""Archives: only necessary bytes are fetched, and no wrong file is written, nor one elsewhere."""

import io
import os
import re
import signal
import stat
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import psutil
import pytest
from helpers.annotations import ROOT
from helpers.server import serving

from cellular.base.errors import InputError
from cellular.fetching.archives import fetch_members, matching, read_member, unpack
from cellular.fetching.downloads import session

ALL = matching("*")
FIELDS = [f"Timepoint_001_220518-ST_C{n:03d}_s1" for n in range(200)]
ANNOTATED = FIELDS[5:200:17]  # 12 of them


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("cellular.fetching.downloads.WAIT", 0.01)


def zipped(members: dict[str, bytes], **options) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            with archive.open(name, "w", **options) as file:
                file.write(content)
    return stream.getvalue()


@pytest.fixture(scope="module")
def images():
    """Channels of 200 fields, 16-bit noise, named as in the data set's archive."""
    random = np.random.default_rng(0)
    return {
        f"images/{field}_w{wave}.TIF": random.integers(0, 999, 40_000, np.uint16).tobytes()
        for field in FIELDS
        for wave in (1, 2, 3)
    }


@pytest.fixture(scope="module")
def archive(images):
    return zipped(images, force_zip64=True)


@pytest.fixture
def site(archive):
    with serving({"/images.zip": archive}) as started:
        yield started


WANTED = [f"images/{field}_w{wave}.TIF" for field in ANNOTATED for wave in (1, 2, 3)]


def fetch(site, folder, wanted=WANTED):
    with session() as http:
        fetch_members(http, site.url, wanted, folder)


def is_right(folder, images, wanted=WANTED):
    found = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        # A kill just after a file got its name leaves the hidden folder in which it was made.
        if path.is_file() and path.parent.suffix != ".partial"
    )
    return found == sorted(wanted) and all(
        (folder / name).read_bytes() == images[name] for name in wanted
    )


def test_only_wanted_members_are_fetched(site, archive, images, tmp_path):
    fetch(site, tmp_path)
    assert is_right(tmp_path, images)
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        needed = sum(opened.getinfo(name).compress_size for name in WANTED)
    assert site.sent["/images.zip"] <= 1.05 * needed + 2e6
    assert site.sent["/images.zip"] < 0.2 * len(archive)


def test_complete_members_are_kept_and_damaged_ones_fetched_again(site, images, tmp_path):
    fetch(site, tmp_path)
    (tmp_path / WANTED[3]).write_bytes(b"\0" * 80_000)
    site.parts.clear()
    fetch(site, tmp_path)
    assert is_right(tmp_path, images)
    assert sum(sent > 20_000 for _, start, sent in site.parts if start < 8_000_000) == 1


@pytest.mark.parametrize(
    "faults", [["", "429"], ["", "", "503", "503"], ["reset"] * 2, ["redirect"]]
)
def test_passing_faults_are_retried(site, images, tmp_path, faults):
    site.faults = faults
    fetch(site, tmp_path)
    assert is_right(tmp_path, images)


@pytest.mark.parametrize("position", range(3, 9))
def test_a_reset_within_a_member_is_retried(site, images, tmp_path, position):
    site.faults = [""] * position + ["reset"]
    fetch(site, tmp_path)
    assert is_right(tmp_path, images)


def test_a_flipped_bit_is_an_error_and_leaves_no_wrong_file(site, images, tmp_path):
    site.faults = [""] * 6 + ["flip"] * 4
    with pytest.raises(InputError, match=r"images\.zip"):
        fetch(site, tmp_path)
    for path in tmp_path.rglob("*.TIF"):
        assert path.read_bytes() == images[str(path.relative_to(tmp_path))]
    site.faults = []
    fetch(site, tmp_path)
    assert is_right(tmp_path, images)


def test_a_server_without_ranges_is_an_error_and_no_whole_archive_is_fetched(
    site, archive, tmp_path
):
    site.ranges = False
    with pytest.raises(InputError, match=r"whole files only .*name a mirror"):
        fetch(site, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_archive_that_changes_meanwhile_is_an_error(site, tmp_path):
    class Changing(list):
        def pop(self, index):
            if len(site.requests) > 5:
                site.etag = '"v2"'
            return ""

    site.faults = Changing(["x"])
    with pytest.raises(InputError, match="changed while it was read"):
        fetch(site, tmp_path)


@pytest.mark.parametrize("fault", ["403", "404", "html"])
def test_lasting_faults_are_not_retried(site, tmp_path, fault):
    site.faults = [fault]
    with pytest.raises(InputError, match=r"images\.zip: the server answered"):
        fetch(site, tmp_path)
    assert len(site.requests) == 1


def test_all_missing_members_are_named(site, tmp_path):
    with pytest.raises(InputError, match="2 faults") as error:
        fetch(site, tmp_path, [*WANTED, "images/moon.TIF", "images/mars.TIF"])
    assert "images/moon.TIF: not in the archive" in str(error.value)


PROGRAM = """
import sys
sys.path.insert(0, "src")
from cellular.fetching import archives, downloads
downloads.WAIT = 0.01
with downloads.session() as http:
    archives.fetch_members(http, {url!r}, {wanted!r}, archives.Path({folder!r}))
"""


@pytest.mark.slow
def test_after_ten_kills_all_is_right_and_no_finished_member_was_fetched_twice(
    site, archive, images, tmp_path
):
    site.pause = 0.02
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        starts = {opened.getinfo(name).header_offset: name for name in WANTED}
    program = PROGRAM.format(url=site.url, wanted=WANTED, folder=str(tmp_path))
    random = np.random.default_rng(1)
    for _ in range(10):
        finished = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.TIF")}
        site.requests.clear()
        running = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
        while running.poll() is None and len(site.requests) < 4:  # it has read the directory
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.25))
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        asked = {int(re.match(r"bytes=(\d+)", request["Range"])[1]) for request in site.requests}
        assert not {starts[start] for start in asked & starts.keys()} & finished
    site.pause = 0
    fetch(site, tmp_path)
    assert is_right(tmp_path, images)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_archive(tmp_path):
    """Two members of 60 MB, of an archive of 300 MB."""
    random = np.random.default_rng(0)
    members = {f"x{n}": random.bytes(60_000_000) for n in range(5)}
    with serving({"/x.zip": zipped(members)}) as site:
        program = PROGRAM.format(url=site.url, wanted=["x2", "x3"], folder=str(tmp_path))
        running = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
        peak = 0
        while running.poll() is None:
            try:
                peak = max(peak, psutil.Process(running.pid).memory_info().rss)
            except psutil.NoSuchProcess:
                break
            time.sleep(0.005)
        assert running.wait() == 0
    assert 0 < peak < 400e6
    assert (tmp_path / "x2").read_bytes() == members["x2"]


# --- malicious and broken archives ---------------------------------------------------------------


def escape(path):
    path.write_bytes(zipped({"masks/../../evil": b"x"}))
    return "leads out of the folder"


def absolute(path):
    path.write_bytes(zipped({"/tmp/evil": b"x"}))
    return "leads out of the folder"


def drive(path):
    path.write_bytes(zipped({"C:/evil": b"x"}))
    return "leads out of the folder"


def link(path):
    member = zipfile.ZipInfo("link")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "/etc/passwd")
    return "is a link"


def twice(path):
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning):
        archive.writestr("a", "1")
        archive.writestr("a", "2")
    return "two members are named a|is there twice"


def patched(content: bytes, size: int) -> bytes:
    """Return an archive of one member with another size in its directory and header."""
    content = bytearray(content)
    struct.pack_into("<I", content, 22, size)
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, size)
    return bytes(content)


def understated(path):
    path.write_bytes(patched(zipped({"bomb": bytes(10_000_000)}), 1024))
    return "damaged|longer than the 1,024 bytes declared"


def bomb(path):
    path.write_bytes(patched(zipped({"bomb": b"x" * 100}), 4_000_000_000))
    return "grows from"


def encrypted(path):
    content = bytearray(zipped({"secret": b"x" * 100}))
    for at in (6, content.index(b"PK\x01\x02") + 8):
        content[at] |= 1
    path.write_bytes(content)
    return "is encrypted"


def truncated(path):
    path.write_bytes(zipped({f"x{n}": b"x" for n in range(100)})[:-60])
    return "no readable archive, or damaged"


def no_archive(path):
    path.write_bytes(b"<html>")
    return "no readable archive|nothing|416"


def nameless(path):
    content = zipped({"x": b"x" * 100})
    path.write_bytes(content.replace(b"x", b".").replace(b"." * 100, b"x" * 100))
    return "leads out of the folder"


HARM = [escape, absolute, drive, link, twice, understated, bomb, encrypted, truncated, no_archive]
HARM += [nameless]


@pytest.mark.parametrize("harm", HARM)
def test_harmful_archives_are_refused_by_name(tmp_path, harm):
    path = tmp_path / "harm.zip"
    message = harm(path)
    folder = tmp_path / "deep" / "out"
    with pytest.raises(InputError, match=message) as error:
        unpack(path, folder, lambda member: member)
    assert "harm.zip" in str(error.value)
    assert not [found for found in tmp_path.rglob("evil")] and not os.path.lexists(folder / "link")


@pytest.mark.parametrize("harm", HARM)
def test_harmful_archives_are_refused_over_http(tmp_path, harm):
    path = tmp_path / "harm.zip"
    message = harm(path)
    wanted = []
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as opened:
            wanted = opened.namelist()
    folder = tmp_path / "deep" / "out"
    with (
        serving({"/harm.zip": path.read_bytes()}) as site,
        pytest.raises(InputError, match=message),
    ):
        fetch(site, folder, wanted or ["x0"])
    left = {found.name for found in tmp_path.rglob("*") if found.is_file()}
    assert left <= {"harm.zip", ".out.lock"}


def test_tar_members_are_checked(tmp_path):
    import tarfile

    (tmp_path / "file").write_text("x")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "file", "file")
    with pytest.raises(InputError, match=r"file has sha256 .*expected 000"):
        read_member(tmp_path / "x.tar.gz", "file", "0" * 64)
    with pytest.raises(InputError, match="no file other"):
        read_member(tmp_path / "x.tar.gz", "other")
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="no readable archive"):
        read_member(tmp_path / "x.tar.gz", "file")


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_an_archive_with_changed_bytes_is_right_or_refused(tmp_path, method):
    random = np.random.default_rng(method)
    members = {"a/x": random.bytes(300) + b"0" * 300, "a/y": b"y" * 99}
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    whole = path.read_bytes()
    for number in range(200):
        content = bytearray(whole)
        for at in random.integers(len(whole), size=3):
            content[at] = random.integers(256)
        path.write_bytes(content[: random.integers(len(whole))] if number % 3 == 0 else content)
        try:
            unpack(path, tmp_path / str(number), ALL)
        except InputError as error:
            assert "x.zip" in str(error)
        else:
            for found in (tmp_path / str(number)).iterdir():
                assert found.read_bytes() in members.values()
