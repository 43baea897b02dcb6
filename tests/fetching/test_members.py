"""Members: fields of a zip archive on a server, fetched side by side, and by nothing too much."""

import io
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import cv2
import numpy as np
import pytest
import tifffile
from helpers.server import serving
from hypothesis import given
from hypothesis import strategies as st

from cellular.base.errors import InputError
from cellular.base.files import REPOSITORY
from cellular.fetching import members
from cellular.fetching.datasets import RGB, merge_channels
from cellular.fetching.members import PIXEL_SIZE, remote_fields, share_requests
from cellular.imaging.images import read_image
from cellular.imaging.rendering import MERGED_COLOURS, MERGED_RANGES, render

FIELDS = [f"Timepoint_{time:03d}_220518-ST_C{n:02d}_s1" for time in (1, 2, 3) for n in range(10)]


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """Nothing is in memory from another test, a repository of our own, and short waits."""
    monkeypatch.setattr("cellular.fetching.downloads.WAIT", 0.01)
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(REPOSITORY, str(tmp_path))
    forget()


def forget():
    """Be a process that has read nothing yet."""
    members._recent.parts.clear()
    members._opened.cache_clear()


def tif(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels)
    return stream.getvalue()


def zipped(files: dict[str, bytes], method=zipfile.ZIP_DEFLATED, **options) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in files.items():
            with archive.open(name, "w", **options) as file:
                file.write(content)
    return stream.getvalue()


def channels(fields=FIELDS, side=60) -> dict[str, np.ndarray]:
    """16-bit noise, named as in CELLULAR's archive."""
    random = np.random.default_rng(0)
    return {
        f"images/{field}_w{wave}.TIF": random.integers(0, 3000, (side, side), np.uint16)
        for field in fields
        for wave in (1, 2, 3)
    }


PLANES = channels()
FILES = {name: tif(plane) for name, plane in PLANES.items()}


def raw(field: str) -> np.ndarray:
    return np.dstack([PLANES[f"images/{field}_{wave}.TIF"] for wave in ("w2", "w1", "w3")])


def needed(archive: bytes, names) -> int:
    """Bytes of members with their headers, and of the archive's directory."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        entries = [opened.getinfo(name) for name in names]
        headers = sum(30 + len(entry.filename) + len(entry.extra) for entry in entries)
        directory = len(archive) - opened.start_dir
        return sum(entry.compress_size for entry in entries) + headers + directory


def asked(site) -> int:
    return sum(sent for _, _, sent in site.parts)


def planes_of(fields) -> list[str]:
    return [f"images/{field}_w{wave}.TIF" for field in fields for wave in (1, 2, 3)]


def right(sources, fields):
    assert [source.name for source in sources] == list(fields)
    for source in sources:
        assert (source.read().pixels == raw(source.name)).all()


@pytest.fixture
def site():
    with serving({"/images.zip": zipped(FILES)}) as started:
        yield started


def test_a_field_is_the_picture_of_its_authors(site):
    source = remote_fields(site.url, [FIELDS[3]])[0]
    image = source.read()
    assert source.name == FIELDS[3]
    assert (image.pixels == render(raw(FIELDS[3]), MERGED_COLOURS, MERGED_RANGES)).all()
    assert image.pixels.dtype == np.uint8
    assert (image.channels, image.pixel_size) == (("red", "green", "blue"), PIXEL_SIZE)


def test_a_field_can_be_its_channels(site):
    image = remote_fields(site.url, [FIELDS[3]], rendering="raw", pixel_size=0.5)[0].read()
    assert (image.pixels == raw(FIELDS[3])).all() and image.pixels.dtype == np.uint16
    assert (image.channels, image.pixel_size) == (("mRFP", "EGFP", "transmitted"), 0.5)


def test_a_real_field_is_the_one_that_fetch_data_merges(sample, tmp_path):
    field = "Timepoint_002_220518-ST_C03_s3"
    planes = [sample / "channels" / f"{field}_{wave}.TIF" for wave in RGB]
    files = {f"images/{path.name}": path.read_bytes() for path in planes}
    with serving({"/images.zip": zipped(files, zipfile.ZIP_STORED)}) as site:
        (source,) = remote_fields(site.url)
        merge_channels(planes, tmp_path / "merged.tif")
        assert source.name == field
        assert (source.read().pixels == read_image(tmp_path / "merged.tif")).all()


# --- what is asked for ---------------------------------------------------------------------------


def test_the_directory_alone_is_read_until_a_field_is(site):
    sources = remote_fields(site.url)
    assert len(sources) == 30
    assert asked(site) < 1.05 * needed(site.files["/images.zip"], [])
    digests = {source.digest() for source in sources}
    assert len(digests) == 30 and asked(site) < 1.05 * needed(site.files["/images.zip"], [])


@pytest.mark.parametrize("order", ["as named", "shuffled", "channel by channel"])
def test_neighbours_come_by_one_request_and_nothing_comes_twice(order):
    names = list(FILES)
    if order == "shuffled":
        names = [str(name) for name in np.random.default_rng(1).permutation(names)]
    if order == "channel by channel":
        names.sort(key=lambda name: name[-6:])
    archive = zipped({name: FILES[name] for name in names})
    with serving({"/images.zip": archive}) as site:
        sources = remote_fields(site.url, rendering="raw")
        before = len(site.requests)
        right(sources, FIELDS)
        assert len(site.requests) - before == 2  # the version, and all fields
    assert asked(site) <= 1.05 * needed(archive, FILES)


def test_a_request_is_no_larger_than_said(site, monkeypatch):
    size = len(site.files["/images.zip"]) / 30
    monkeypatch.setattr(members, "REQUEST", int(4.5 * size))
    monkeypatch.setattr(members, "KEPT", int(9 * size))
    sources = remote_fields(site.url, rendering="raw")
    site.parts.clear()
    right(sources, FIELDS)
    sizes = [sent for _, _, sent in site.parts]
    assert len(sizes) == 1 + 8 and max(sizes) <= 4.5 * size
    assert sum(map(len, members._recent.parts.values())) <= 9 * size


def test_of_200_tiny_fields_no_more_than_needed_is_asked():
    fields = [f"Timepoint_001_220518-ST_C03_s{n:03d}" for n in range(200)]
    files = {name: tif(plane) for name, plane in channels(fields, side=4).items()}
    archive = zipped(files)
    with serving({"/images.zip": archive}) as site:
        for source in remote_fields(site.url):
            source.read()
        assert asked(site) <= 1.05 * needed(archive, files)
        assert len(site.requests) < 8


def test_fields_far_apart_come_by_a_request_each(site):
    chosen = FIELDS[::7]
    sources = remote_fields(site.url, chosen, rendering="raw")
    before = len(site.requests)
    right(sources, chosen)
    assert len(site.requests) - before == 1 + len(chosen)
    assert asked(site) <= 1.05 * needed(site.files["/images.zip"], planes_of(chosen))


def test_what_a_shard_leaves_out_is_not_asked_for(site):
    shard = share_requests(remote_fields(site.url, rendering="raw")[1::3])
    right(shard, FIELDS[1::3])
    wanted = needed(site.files["/images.zip"], planes_of(FIELDS[1::3]))
    assert asked(site) <= 1.05 * wanted


def test_a_small_gap_is_bridged_and_counted():
    """A text of 100 bytes between fields is asked for; one of 100,000 is not."""
    for size, requests in ((100, 1), (100_000, 2)):
        names = list(FILES)
        files = {name: FILES[name] for name in names[:45]}
        files |= {"notes.txt": np.random.default_rng(0).bytes(size)}
        files |= {name: FILES[name] for name in names[45:]}
        archive = zipped(files, zipfile.ZIP_STORED)
        with serving({"/images.zip": archive}) as site:
            forget()
            sources = remote_fields(site.url, rendering="raw")
            before = len(site.requests)
            right(sources, FIELDS)
            assert len(site.requests) - before == 1 + requests
            assert asked(site) <= 1.05 * needed(archive, FILES)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), min_size=1), st.randoms())
def test_each_extent_lies_in_one_part_and_few_bytes_in_none(steps, random):
    extents, at = [], 0
    for gap, length in steps:
        extents.append(range(at + gap, at + gap + length))
        at = extents[-1].stop
    shuffled = random.sample(extents, len(extents))
    parts = members._parts(shuffled)
    for extent in extents:
        assert sum(extent[0] in part and extent[-1] in part for part in parts) == 1
    assert sum(map(len, parts)) <= (1 + members.BRIDGED) * sum(map(len, extents))
    assert all(one.stop < other.start for one, other in pairwise(parts))


def test_threads_share_a_request(site):
    sources = remote_fields(site.url, rendering="raw")
    before = len(site.requests)
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda source: source.read().pixels, sources))
    assert len(site.requests) - before == 2
    assert all((image == raw(name)).all() for image, name in zip(images, FIELDS, strict=True))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_large_archives_have_entries_of_their_own(method):
    with serving({"/images.zip": zipped(FILES, method, force_zip64=True)}) as site:
        right(remote_fields(site.url, rendering="raw"), FIELDS)


def test_members_may_lie_beyond_4_gib(tmp_path):
    """A sparse archive of 5 GB: its last field is behind a hole, where only zip64 can point to."""
    content, path = zipped(FILES), tmp_path / "images.zip"
    with path.open("wb") as file:
        file.seek(5 << 30)
        file.write(content)
    with zipfile.ZipFile(path, "a") as archive:
        for name in planes_of(["behind"]):
            archive.writestr(name, FILES[planes_of(FIELDS[:1])[0]])
    assert remote_fields(str(path), ["behind"])[0].read().pixels.shape == (60, 60, 3)
    right(remote_fields(str(path), ["Time*"], rendering="raw"), FIELDS)


# --- names ---------------------------------------------------------------------------------------


def test_names_and_patterns_choose_fields(site):
    found = remote_fields(site.url, ["Timepoint_002*_C0[12]_*", FIELDS[0], FIELDS[0]])
    assert [source.name for source in found] == [FIELDS[0], FIELDS[11], FIELDS[12]]


def test_all_patterns_that_match_nothing_are_named(site):
    with pytest.raises(InputError, match="2 faults") as error:
        remote_fields(site.url, ["*", "moon", "mars*"])
    assert "none of its 30 images matches 'moon'; they are named like Timepoint_001" in str(
        error.value
    )


def test_a_field_without_a_channel_is_told_only_if_it_is_wanted():
    files = {name: FILES[name] for name in list(FILES)[:-1]}
    with serving({"/images.zip": zipped(files)}) as site:
        right(remote_fields(site.url, ["Timepoint_001*"], rendering="raw"), FIELDS[:10])
        with pytest.raises(
            InputError, match=f"the channels {FIELDS[-1]}_w2.TIF, {FIELDS[-1]}_w1.TIF, exp"
        ):
            remote_fields(site.url)


def test_an_archive_without_channels_has_one_image_a_member():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    png = cv2.imencode(".png", grey)[1].tobytes()
    files = {"my cells/a.png": png, "my cells/b/c.tif": tif(grey), "my cells/notes.txt": b"x"}
    files |= {
        "__MACOSX/my cells/._a.png": b"x",
        "my cells/.hidden.png": b"x",
        "my cells/d_w1.tif": b"",
    }
    with serving({"/cells.zip": zipped(files)}) as site:
        sources = remote_fields(site.url, ["a", "b/*"])
        assert [source.name for source in sources] == ["a", "b/c"]
        for image in (source.read() for source in sources):
            assert (image.pixels == grey).all()
            assert (image.channels, image.pixel_size) == ((), None)


def test_an_image_on_its_own_keeps_what_its_file_says():
    stream = io.BytesIO()
    said = {"axes": "CYX", "unit": "um", "Labels": ["DNA", "actin"]}
    two = np.arange(60, dtype=np.uint16).reshape(2, 5, 6)
    tifffile.imwrite(stream, two, imagej=True, resolution=(4, 4), metadata=said)
    with serving({"/cells.zip": zipped({"cells.tif": stream.getvalue()})}) as site:
        image = remote_fields(site.url)[0].read()
        given = remote_fields(site.url, pixel_size=0.5)[0].read()
    assert (image.pixels == np.moveaxis(two, 0, -1)).all()
    assert (image.channels, image.pixel_size) == (("DNA", "actin"), 0.25)
    assert given.pixel_size == 0.5


def test_two_images_of_one_name_keep_their_endings():
    files = dict.fromkeys(["a.png", "a.tif", "b.tif"], tif(np.ones((5, 5), np.uint8)))
    with serving({"/cells.zip": zipped(files)}) as site:
        names = [source.name for source in remote_fields(site.url)]
    assert names == ["a.png", "a.tif", "b.tif"]


@pytest.mark.parametrize("name", ["../evil", "/evil", "c:/evil"])
def test_names_that_lead_elsewhere_are_refused(name):
    files = {f"{name}_w{wave}.TIF": b"x" for wave in (1, 2, 3)}
    with (
        serving({"/images.zip": zipped(files)}) as site,
        pytest.raises(InputError, match="leads out of the folder"),
    ):
        remote_fields(site.url)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("a.png", "a.png"):
            archive.writestr(name, b"x")
    with (
        serving({"/cells.zip": stream.getvalue()}) as site,
        pytest.raises(InputError, match=r"a\.png: is there twice"),
    ):
        remote_fields(site.url)


def test_an_archive_without_images_is_refused():
    with (
        serving({"/cells.zip": zipped({"notes.txt": b"x"})}) as site,
        pytest.raises(InputError, match=r"no images in it; expected \.png"),
    ):
        remote_fields(site.url)


# --- where it comes from -------------------------------------------------------------------------


def remote(folder, address):
    (folder / ".dvc").mkdir(exist_ok=True)
    (folder / ".dvc/config").write_text(f"['remote \"zenodo\"']\n    url = {address}\n")


def test_a_remote_may_be_a_mirror_or_a_local_folder(site, tmp_path):
    local = tmp_path / "local"
    local.mkdir()
    (local / "images.zip").write_bytes(site.files["/images.zip"])
    digests = []
    for address in (site.root, str(local)):
        remote(tmp_path, address)
        sources = remote_fields("remote://zenodo/images.zip", rendering="raw")
        right(sources, FIELDS)
        digests.append([source.digest() for source in sources])
    assert digests[0] == digests[1]


def test_a_digest_changes_with_the_image():
    (one, other), files = FIELDS[:2], {name: FILES[name] for name in planes_of(FIELDS[:2])}
    changed = {**files, f"images/{other}_w3.TIF": FILES[f"images/{one}_w3.TIF"]}
    with serving({"/a.zip": zipped(files), "/b.zip": zipped(changed)}) as site:
        before, after = remote_fields(f"{site.root}/a.zip"), remote_fields(f"{site.root}/b.zip")
        same = [a.digest() == b.digest() for a, b in zip(before, after, strict=True)]
        assert same == [True, False]
        assert before[0].digest() != remote_fields(site.url, [one], rendering="raw")[0].digest()


def test_a_source_is_small_and_works_in_another_process(site):
    """A worker that never saw the directory: it opens a session of its own."""
    sent = [pickle.dumps(source) for source in remote_fields(site.url, rendering="raw")]
    assert max(map(len, sent)) < 3000
    forget()
    members._http.cache_clear()
    right([pickle.loads(each) for each in sent], FIELDS)
    assert len([part for part in site.parts if part[1] == len(site.files["/images.zip"]) - 22]) == 1


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("faults", [["503", "429"], ["", "reset"], ["reset"] * 2, ["redirect"]])
def test_passing_faults_are_retried(site, faults):
    sources = remote_fields(site.url, rendering="raw")
    site.faults = faults
    right(sources, FIELDS)


def test_a_byte_that_changed_on_its_way_is_asked_for_again(site):
    source = remote_fields(site.url, FIELDS[4:5], rendering="raw")[0]
    site.faults = ["", "flip"]
    assert (source.read().pixels == raw(FIELDS[4])).all()


def test_a_damaged_member_is_named_and_the_others_are_right(site):
    content = bytearray(site.files["/images.zip"])
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        content[opened.getinfo(f"images/{FIELDS[4]}_w3.TIF").header_offset + 1000] ^= 1
    site.files["/images.zip"] = bytes(content)
    sources = remote_fields(site.url, rendering="raw")
    with pytest.raises(InputError, match=rf"{FIELDS[4]}_w3\.TIF: no readable archive, or damaged"):
        sources[4].read()
    assert (sources[5].read().pixels == raw(FIELDS[5])).all()


def test_a_member_that_is_no_image_is_named():
    with serving({"/cells.zip": zipped({"a.png": b"x", "b.tif": b"x"})}) as site:
        for source in remote_fields(site.url):
            with pytest.raises(InputError, match=rf"^{site.url}: {source.name}\.\w+: no readable"):
                source.read()


@pytest.mark.parametrize("fault", ["403", "404", "html"])
def test_lasting_faults_are_told_once(site, fault):
    source = remote_fields(site.url)[0]
    site.requests.clear()
    site.faults = [fault]
    with pytest.raises(InputError, match=r"images\.zip: the server answered"):
        source.read()
    assert len(site.requests) == 1


@pytest.mark.parametrize("opened", [False, True])
def test_an_archive_that_has_changed_is_not_mixed(site, opened, monkeypatch):
    monkeypatch.setattr(members, "REQUEST", 1)
    sources = remote_fields(site.url)
    if opened:
        sources[0].read()
    site.etag = '"v2"'
    with pytest.raises(InputError, match=r"images\.zip: changed .*run again"):
        sources[1].read()


def test_a_server_that_is_gone_is_told():
    with serving({"/images.zip": zipped(FILES)}) as site:
        source = remote_fields(site.url)[0]
        members._http.cache_clear()  # a connection that is open would go on being answered
    with pytest.raises(InputError, match=r"images\.zip: cannot be reached .*name a mirror"):
        source.read()


def test_a_missing_local_archive_is_told(tmp_path):
    remote(tmp_path, tmp_path / "nothing")
    with pytest.raises(InputError, match=r"images\.zip: no such file in the folder"):
        remote_fields("remote://zenodo/images.zip")
