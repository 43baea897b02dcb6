"""Every data set of the catalogue gets the layout that prepare expects, or one clear error."""

import hashlib
import io
import json
import subprocess
import zipfile

import cv2
import numpy as np
import pytest
import tifffile
from helpers.annotations import ROOT, coloured, disc
from helpers.server import serving

from cellular.base.errors import InputError
from cellular.fetching import datasets
from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.pretrained import pretrained_state
from cellular.fetching.sources import catalogue
from cellular.imaging.boxes import check_boxes, read_boxes
from cellular.imaging.images import read_image
from cellular.network import weights
from cellular.preparing.params import PrepareParams
from cellular.preparing.preparation import process_masks

TRAIN, VALID, TEST, OTHER = (
    f"Timepoint_001_220518-{well}_s1" for well in ("ST_D02", "ST_I06", "ST_C03", "ST_E05")
)
LABELS = (disc(20, 20) * 1 + disc(60, 60) * 2).astype(np.uint16)


def png(image) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def tif(image) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, image)
    return stream.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def mask_members(root: str) -> dict[str, bytes]:
    members = {"__MACOSX/masks/._x": b"x", f"{root}masks/{TRAIN}/fed/.DS_Store": b"x"}
    for field in (TRAIN, VALID, TEST):
        for number, (name, mask) in enumerate(
            (("fed", disc(20, 20)), ("unfed", disc(60, 60)), ("Unidentified", disc(20, 60)))
        ):
            members[f"{root}masks/{field}/{name}/c{number}.png"] = png(coloured(mask))
    return members


def channel(field: str, wave: int) -> np.ndarray:
    return np.random.default_rng([len(field), wave]).integers(0, 4095, (96, 96), np.uint16)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A server in place of Zenodo, Simula and Cellpose, with the configuration that leads to it."""
    images = {
        f"images/{field}_w{wave}.TIF": tif(channel(field, wave))
        for field in (TRAIN, VALID, TEST, OTHER)
        for wave in (1, 2, 3)
    }
    black = cv2.imencode(".jpg", np.zeros((96, 96, 3)))[1].tobytes()
    experiments = mask_members("some/where/") | {
        f"some/where/images-color/{field}.jpg": black for field in (TRAIN, VALID, TEST)
    }
    state = io.BytesIO()
    weights.torch.save(weights.random_state(5), state)
    files = {
        "/records/8/files/masks.zip": zipped(mask_members("")),
        "/records/8/files/images.zip": zipped(images),
        "/simula/cellular-experiments.zip": zipped(experiments),
        "/simula/cellular-experiments-models/Fine-Tuned-Cyto2": state.getvalue(),
        "/cellpose/cyto2torch_0": state.getvalue(),
    }
    listed = [
        {
            "key": path.split("/")[-1],
            "size": len(content),
            "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
        }
        for path, content in files.items()
        if path.startswith("/records")
    ]
    files["/api/records/8"] = json.dumps({"files": listed}).encode()
    known = catalogue()
    masks = known.files["cellular-masks"].model_copy(
        update={"sha256": hashlib.sha256(files["/records/8/files/masks.zip"]).hexdigest()}
    )
    changed = known.model_copy(update={"files": known.files | {"cellular-masks": masks}})
    monkeypatch.setattr(datasets, "catalogue", lambda: changed)
    monkeypatch.setattr("cellular.fetching.records.RECORDED", tmp_path / "recorded.yaml")
    monkeypatch.setattr("cellular.fetching.downloads.WAIT", 0.01)
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
    (tmp_path / "repository" / ".dvc").mkdir(parents=True)
    with serving(files) as started:
        remotes = {"zenodo": "/records/8/files", "simula": "/simula", "cellpose": "/cellpose"}
        remotes["cellvisionai"] = "/boxes"
        (tmp_path / "repository" / ".dvc" / "config").write_text(
            "".join(
                f"['remote \"{name}\"']\n    url = {started.root}{path}\n"
                for name, path in remotes.items()
            )
        )
        yield started


def prepared_cells(raw, out, **options):
    report = process_masks(raw / "masks", out, raw / "images", PrepareParams(**options))
    return {split: n["cells"] for split, n in report["splits"]["all"].items()}


def test_cellular_fetches_the_channels_of_annotated_fields_and_merges_them(site, tmp_path):
    raw = tmp_path / "raw"
    assert fetch_dataset("cellular", raw) == {"channels": 9, "images": 3, "masks": 9}
    image = read_image(raw / "images" / f"{TRAIN}.tif")
    stack = np.dstack([channel(TRAIN, wave) for wave in (2, 1, 3)])  # R = w2, G = w1, grey = w3
    merged = datasets.render(stack, datasets.MERGED_COLOURS, datasets.MERGED_RANGES)
    assert np.array_equal(image, merged)
    assert np.array_equal(read_image(raw / "channels" / f"{TRAIN}_w1.TIF"), channel(TRAIN, 1))
    assert prepared_cells(raw, tmp_path / "prepared") == {"train": 2, "valid": 2, "test": 2}
    assert not any("recorded" in path.name for path in tmp_path.iterdir())  # hashes were known


def test_cellular_can_keep_its_raw_channels_as_image(site, tmp_path):
    fetch_dataset("cellular", tmp_path / "raw", datasets.DataParams(rendering="raw"))
    image = read_image(tmp_path / "raw" / "images" / f"{TRAIN}.tif")
    assert image.dtype == np.uint16 and image.shape == (96, 96, 3)
    for position, wave in enumerate((2, 1, 3)):  # R = w2, G = w1, B = w3
        assert np.array_equal(image[..., position], channel(TRAIN, wave))


def test_cellular_can_come_from_a_local_folder(site, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name in ("masks.zip", "images.zip"):
        (mirror / name).write_bytes(site.files[f"/records/8/files/{name}"])
    config = tmp_path / "repository" / ".dvc" / "config"
    config.write_text(f"['remote \"zenodo\"']\n    url = {mirror}\n")
    assert fetch_dataset("cellular", tmp_path / "raw")["channels"] == 9
    assert not site.requests
    (mirror / "images.zip").unlink()
    with pytest.raises(InputError, match=r"images\.zip: no such file in the folder"):
        fetch_dataset("cellular", tmp_path / "again")


def test_cellular_experiments_are_found_at_any_depth_and_recorded(site, tmp_path):
    raw = tmp_path / "raw"
    assert fetch_dataset("cellular-simula", raw) == {"images": 3, "masks": 9}
    assert prepared_cells(raw, tmp_path / "prepared")["test"] == 2
    assert "remote://simula/cellular-experiments.zip" in (tmp_path / "recorded.yaml").read_text()


@pytest.fixture
def boxed(site, monkeypatch):
    """The data set unseen, of two files that the server has."""
    image = cv2.imencode(".jpg", np.zeros((96, 96, 3)))[1].tobytes()
    files = {f"images/{TRAIN}.jpg": image, f"labels/{TRAIN}.txt": b"0 0.5 0.5 0.1 0.2\n"}
    site.files |= {f"/boxes/train/{path}": content for path, content in files.items()}
    known = datasets.catalogue()
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    data_set = known.dataset("unseen").model_copy(update={"hashes": hashes})
    changed = known.model_copy(update={"datasets": known.datasets | {"unseen": data_set}})
    monkeypatch.setattr(datasets, "catalogue", lambda: changed)
    return site


def test_single_files_become_a_folder_that_is_scored_directly(boxed, tmp_path):
    assert fetch_dataset("unseen", tmp_path / "unseen") == {"jpg": 1, "txt": 1}
    (pair,) = check_boxes(tmp_path / "unseen")
    assert pair.field == TRAIN and len(read_boxes(pair.labels, (96, 96))[0]) == 1
    asked = len(boxed.requests)
    fetch_dataset("unseen", tmp_path / "again")
    assert len(boxed.requests) == asked


@pytest.mark.parametrize("fault", ["flip", "html"])
def test_a_single_file_that_is_not_the_one_of_the_catalogue_is_refused(boxed, tmp_path, fault):
    boxed.faults = ["", fault]
    with pytest.raises(InputError, match=f"{TRAIN}.txt: (sha256|the server answered)"):
        fetch_dataset("unseen", tmp_path / "unseen")
    assert not (tmp_path / "unseen").exists()
    fetch_dataset("unseen", tmp_path / "unseen")  # the image is there, the boxes come again
    images = [request for request in boxed.requests if request["path"].endswith(".jpg")]
    assert len(images) == 1


def test_the_catalogue_has_an_image_and_boxes_of_each_unseen_field():
    hashes = catalogue().dataset("unseen").hashes
    images, boxes = (
        {path[len(folder) : -4] for path in hashes if path.startswith(folder)}
        for folder in ("images/", "labels/")
    )
    assert images == boxes and len(images) == len(hashes) / 2 == 18
    assert {field.split("_")[3] for field in images} == {"C05", "K07"}


@pytest.mark.parametrize("name", ["cyto2", "fine-tuned-cyto2"])
def test_weights_come_from_their_remotes(site, name):
    state = pretrained_state(name)
    assert weights.torch.equal(state["output.2.weight"], weights.random_state(5)["output.2.weight"])


def test_nothing_is_requested_once_everything_is_in_the_cache(site, tmp_path):
    fetch_dataset("cellular-simula", tmp_path / "raw")
    pretrained_state("cyto2")
    site.requests.clear()
    fetch_dataset("cellular-simula", tmp_path / "raw", force=True)
    pretrained_state("cyto2")
    assert not site.requests


def test_git_tracks_the_record_of_hashes():
    listed = subprocess.run(
        ["git", "check-ignore", "data/recorded.yaml"], cwd=ROOT, capture_output=True
    )
    assert listed.returncode == 1 and (ROOT / "data" / "recorded.yaml").exists()


def test_a_damaged_record_of_hashes_is_an_error(site, tmp_path):
    (tmp_path / "recorded.yaml").write_text("remote://cellpose/cyto2torch_0: {size: 1}\n")
    with pytest.raises(InputError, match=r"recorded\.yaml"):
        pretrained_state("cyto2")
