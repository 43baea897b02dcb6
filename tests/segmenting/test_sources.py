"""Images are found wherever they lie, and each has a name of its own below the output."""

import os
import pickle
import shutil
import zipfile
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellular.base.errors import InputError
from cellular.base.files import digest
from cellular.imaging.images import read_image
from cellular.segmenting.sources import find, names

IMAGE = np.arange(200, dtype=np.uint8).reshape(10, 20)
PNG = cv2.imencode(".png", IMAGE)[1].tobytes()


def lay(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(PNG)
    return folder


def zipped(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            archive.writestr(member, PNG)
    return path


def named(*paths, **options):
    return [source.name for source in find(paths, **options)]


IMAGES = ("b.png", "a.JPG", "deep/er/c d.tif", "deep/e.ome.tif", "x.czi")
FOUND = ["a", "b", "deep/e", "deep/er/c d", "x"]
OTHERS = (
    *("b_masks.png", "b_masks.tif", "b_cp_masks.png", "b_flows.tif", "b_excluded.png"),
    *("deep/B_CP_OUTLINES.PNG", "b_seg.npy", "b_classes.csv", "notes.txt", "x.bmp", "other.zip"),
    *(".hidden.png", ".git/x.png", "deep/._b.png", "masks/b.tif", "__MACOSX/b.png", "b.png/"),
)


def test_images_of_a_folder_are_found_and_nothing_else(tmp_path):
    folder = lay(tmp_path / "images", *IMAGES, *(other for other in OTHERS if other[-1] != "/"))
    assert named(folder) == FOUND
    assert named(folder / "deep") == ["e", "er/c d"]


def test_images_of_a_zip_are_found_and_nothing_else(tmp_path):
    assert named(zipped(tmp_path / "x.zip", *OTHERS, *IMAGES)) == FOUND


def test_what_is_left_out_is_told(tmp_path, caplog):
    find([lay(tmp_path, *IMAGES, *OTHERS[:6], "x.bmp")])
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: 6 files left out, which are named as label maps, such as b_cp_masks.png",
        f"{tmp_path}: 1 files left out, which have formats not read here, such as x.bmp",
    ]


def test_outputs_are_no_images(tmp_path):
    lay(tmp_path, "a.png", "before/overlays/a.png", "other/a.png")
    for name in ("run.json", "images.csv"):
        (tmp_path / "before" / name).touch()
    (tmp_path / "other/run.json").touch()
    assert named(tmp_path) == ["a", "other/a"]


def test_files_folders_and_archives_can_be_mixed(tmp_path):
    lay(tmp_path, "one/a.png", "two/b.png", "c.png", "c_masks.png")
    archive = zipped(tmp_path / "x.ZIP", "one/d.png")
    paths = [tmp_path / "c.png", tmp_path / "c_masks.png", archive, tmp_path / "one"]
    assert named(*paths) == named(*reversed(paths)) == ["a", "c", "one/d"]


def test_images_with_one_name_keep_their_endings(tmp_path):
    lay(tmp_path, "a.png", "a.jpg", "b.tif", "b.ome.tif", "c.png", "d.png", "d.png.tif")
    assert named(tmp_path) == ["a.jpg", "a.png", "b.ome.tif", "b.tif", "c", "d", "d.png.tif"]


def test_two_images_of_one_name_are_refused(tmp_path):
    lay(tmp_path, "one/a.png", "two/a.png", "two/b.png")
    with pytest.raises(InputError, match=rf"^{tmp_path}/two: a second image named a\.png"):
        find([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(InputError, match=r"two/a\.png: a second image named a\.png"):
        find([tmp_path / "one/a.png", tmp_path / "two/a.png"])


NAME = st.text(st.sampled_from("ab.~ é"), min_size=1, max_size=4).filter(
    lambda text: text[0] != "."
)
PATH = st.builds(
    lambda folders, name, ending: "/".join([*folders, name + ending]),
    *(st.lists(NAME, max_size=2), NAME),
    st.sampled_from([".png", ".tif", ".ome.tif", ".TIF", ".png.jpg", ".ome.ome.tif"]),
)


@given(st.lists(PATH, unique=True, max_size=8))
def test_names_are_unique_stay_inside_and_know_no_order(paths):
    found = names(paths)
    assert names(reversed(paths)) == found
    assert len(set(found.values())) == len(paths)
    for path, name in found.items():
        assert path.startswith(name) and name
        assert PurePosixPath(name).parts == tuple(name.split("/"))
        assert not {"", ".", ".."} & set(name.split("/"))


@given(st.sets(PATH, min_size=1, max_size=6), st.randoms())
def test_a_folder_and_a_zip_of_it_have_the_same_names(tmp_path_factory, paths, random):
    folder = tmp_path_factory.getbasetemp() / "same"
    shutil.rmtree(folder, ignore_errors=True)
    # Not a file and a folder of one name.
    paths = {path for path in paths if not any(other.startswith(path + "/") for other in paths)}
    lay(folder, *paths)
    listed = random.sample(sorted(paths), len(paths))
    assert named(folder) == named(zipped(folder.with_suffix(".zip"), *listed))


@pytest.mark.parametrize("kind", ["file", "member"])
def test_a_source_is_small_and_reads_its_image_in_another_process(tmp_path, kind):
    lay(tmp_path, "deep/a b.png")
    archive = zipped(tmp_path / "x.zip", "deep/a b.png", *(f"{n}.png" for n in range(1000)))
    found = {each.name: each for each in find([archive if kind == "member" else tmp_path / "deep"])}
    sent = pickle.dumps(found["deep/a b" if kind == "member" else "a b"])
    assert len(sent) < 500
    assert np.array_equal(pickle.loads(sent).read().pixels, IMAGE)


def test_axes_and_names_of_channels_are_handed_on(tmp_path):
    for source in find([lay(tmp_path, "a.png")], axes="XY", channel_names=["TL"]):
        assert source.read().channels == ("TL",)
        assert np.array_equal(source.read().pixels, IMAGE.T)


def test_the_digest_of_a_file_is_that_of_its_bytes_until_it_is_read_otherwise(tmp_path):
    lay(tmp_path, "a.png", "b.png")
    first, second = find([tmp_path])
    assert first.digest() == second.digest() == digest(tmp_path / "a.png")
    (other,) = find([tmp_path / "a.png"], axes="XY")
    assert other.digest() != first.digest()
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"a\.png: cannot be read \(No such file"):
        first.digest()


def test_the_digest_of_a_member_needs_no_archive(tmp_path):
    archive = zipped(tmp_path / "x.zip", "a.png", "b.png")
    before = [source.digest() for source in find([archive])]
    with zipfile.ZipFile(archive, "w") as changed:
        changed.writestr("a.png", PNG)
        changed.writestr("b.png", PNG[:-1] + b"x")
    sources = find([archive])
    archive.unlink()
    after = [source.digest() for source in sources]
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)


def test_a_damaged_member_is_refused_and_the_others_are_read(tmp_path):
    archive = zipped(tmp_path / "x.zip", "a.png", "b.png")
    content = bytearray(archive.read_bytes())
    content[60] ^= 1
    archive.write_bytes(content)
    first, second = find([archive])
    with pytest.raises(InputError, match=r"x\.zip: no readable zip, or damaged"):
        first.read()
    assert np.array_equal(second.read().pixels, IMAGE)


@pytest.mark.parametrize(
    "member", ["../a.png", "/a.png", "b/../../a.png", "C:\\a.png", "..\\a.png"]
)
def test_a_member_that_leads_out_of_the_archive_is_refused(tmp_path, member):
    with pytest.raises(InputError, match="leads out of the folder"):
        find([zipped(tmp_path / "x.zip", "b.png", member)])


def test_members_that_must_not_be_read_are_refused(tmp_path):
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("secret.png", PNG)
        opened.writestr("bomb.png", bytes(1 << 24))
        opened.infolist()[0].flag_bits |= 1
        opened.infolist()[1].compress_size //= 100
    with pytest.raises(InputError) as told:
        find([archive])
    assert [fault.split(": ", 1)[1] for fault in told.value.faults] == [
        "secret.png: is encrypted",
        "bomb.png: grows from 163 to 16,777,216 bytes",
    ]


def test_a_file_that_is_no_zip_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(PNG)
    with pytest.raises(InputError, match=r"x\.zip: no readable zip, or damaged"):
        find([tmp_path / "x.zip"])


def test_all_wrong_paths_are_told_at_once(tmp_path):
    (tmp_path / "x.txt").touch()
    with pytest.raises(InputError) as told:
        find([tmp_path / "none", tmp_path / "x.txt"])
    assert told.value.faults == [
        f"{tmp_path}/none: no such file or folder",
        f"{tmp_path}/x.txt: no image that can be read, expected a folder, "
        ".png, .jpg, .jpeg, .tif, .tiff, .czi, .nd2, .lif, .zip",
    ]


def test_no_images_at_all_are_an_error(tmp_path):
    lay(tmp_path, "a_masks.png", ".b.png")
    with pytest.raises(InputError, match=rf"^{tmp_path}: no images, expected files .* \.png"):
        find([tmp_path])


@pytest.mark.parametrize("name", [b"a\nb.png", b"\xff.png"])
def test_a_name_that_cannot_be_printed_is_refused(tmp_path, name):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(PNG)
    with pytest.raises(InputError, match="a name that cannot be printed; rename the file"):
        find([tmp_path])


def test_letters_that_name_no_axes_are_refused_before_a_file_is_opened(tmp_path):
    with pytest.raises(InputError, match="axes 'CY'"):
        find([tmp_path], axes="CY")


def test_the_real_fields_are_found_without_their_masks(sample):
    fields = sorted((sample / "images").iterdir())
    found = {source.name: source for source in find([sample])}
    assert not any("masks" in name for name in found)
    for path in fields:
        assert np.array_equal(found[f"images/{path.stem}"].read().pixels, read_image(path))
