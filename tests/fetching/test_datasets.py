"""Every data set of the catalogue gets the layout that prepare expects, or one clear error."""

import hashlib
import io
import json
import os
import pickle
import subprocess
import zipfile

import cv2
import numpy as np
import pytest
import tifffile
from cellpose.io import masks_flows_to_seg
from helpers.annotations import ROOT, coloured, disc, write_png
from helpers.server import serving

from cellular.base.errors import InputError
from cellular.fetching import datasets
from cellular.fetching.datasets import fetch_dataset
from cellular.fetching.local import recognise
from cellular.fetching.params import DataParams
from cellular.fetching.pretrained import pretrained_state
from cellular.fetching.sources import catalogue
from cellular.imaging.images import read_image, read_labels
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


# --- a user's own folder -------------------------------------------------------------------------

IMAGES = {
    "grey.png": np.full((96, 96), 7, np.uint8),
    "grey.tif": np.full((96, 96), 700, np.uint16),
    "colour.jpg": np.full((96, 96, 3), 7, np.uint8),
    "two.tif": np.full((2, 96, 96), 700, np.uint16),
    "first.tif": np.full((3, 96, 96), 700, np.uint16),
}


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, image, photometric="minisblack", **options)
    else:
        assert cv2.imwrite(str(path), image)


def as_paper(folder, field, image, suffix):
    save(folder / "images" / f"{field}{suffix}", image)
    for number, mask in enumerate((LABELS == 1, LABELS == 2)):
        write_png(folder / "masks" / field / "fed" / f"{number}.png", coloured(mask))


def as_labels(folder, field, image, suffix):
    save(folder / "images" / f"{field}{suffix}", image)
    save(folder / "masks" / f"{field}.tif", LABELS, compression="lzw")


def as_cellpose(folder, field, image, suffix):
    save(folder / f"{field}{suffix}", image)
    save(folder / f"{field}_masks.png", LABELS)


def as_cellpose_img(folder, field, image, suffix):
    save(folder / f"{field}_img{suffix}", image)
    save(folder / f"{field}_masks.tif", LABELS)
    save(folder / f"{field}_flows.tif", np.zeros((96, 96), np.float32))


def as_seg(folder, field, image, suffix):
    save(folder / f"{field}{suffix}", image)
    flows = [np.zeros((96, 96, 3), np.uint8), np.zeros((2, 96, 96)), np.zeros((96, 96))]
    masks_flows_to_seg(image, LABELS, [*flows, np.zeros(0)], str(folder / f"{field}{suffix}"))


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("write", [as_paper, as_labels, as_cellpose, as_cellpose_img, as_seg])
def test_layouts_are_recognised_and_prepared(tmp_path, write, name):
    folder, raw = tmp_path / "mine", tmp_path / "raw"
    for field in ("a_x", "b_valid", "c_test"):
        write(folder, field, IMAGES[name], f".{name.split('.')[1]}")
    fetch_dataset("local", raw, DataParams(path=str(folder)))
    cells = prepared_cells(raw, tmp_path / "out", val_pattern="valid", test_pattern="test")
    assert cells == {"train": 2, "valid": 2, "test": 2}
    labels = read_labels(tmp_path / "out" / "all" / "test" / "c_test_masks.png")
    assert np.array_equal(labels, LABELS)


def binary(folder):
    as_cellpose(folder, "x", IMAGES["grey.png"], ".png")
    save(folder / "x_masks.png", (LABELS > 0).astype(np.uint8) * 255)
    return r"x_masks\.png: a binary mask of cells and background \(only the value 255\)"


def alone(folder):
    as_cellpose(folder, "x", IMAGES["grey.png"], ".png")
    save(folder / "y.png", IMAGES["grey.png"])
    return r"y\.png: no masks beside it"


def two_images(folder):
    as_cellpose(folder, "x", IMAGES["grey.png"], ".png")
    save(folder / "x_img.tif", IMAGES["grey.tif"])
    return r"x\.png and .*x_img\.tif: 2 files of one field"


def two_masks(folder):
    as_labels(folder, "x", IMAGES["grey.png"], ".png")
    save(folder / "masks" / "x_masks.png", LABELS)
    return r"x\.tif and .*x_masks\.png: 2 files of one field"


def nothing_known(folder):
    save(folder / "y.png", IMAGES["grey.png"])
    return "no layout that is known; name one with data.layout"


def two_layouts(folder):
    as_cellpose(folder, "x", IMAGES["grey.png"], ".png")
    as_seg(folder, "x", IMAGES["grey.png"], ".png")
    return r"files in several layouts \(cellpose, seg\)"


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil_was_run",)


def evil_seg(folder):
    as_seg(folder, "x", IMAGES["grey.png"], ".png")
    np.save(folder / "x_seg.npy", np.array({"masks": Evil()}, object))
    assert b"system" in pickle.dumps(Evil())
    return r"x_seg\.npy: .*system, which is not run"


def cut_seg(folder):
    as_seg(folder, "x", IMAGES["grey.png"], ".png")
    path = folder / "x_seg.npy"
    path.write_bytes(path.read_bytes()[:-1000])
    return r"x_seg\.npy: the masks of Cellpose's GUI cannot be read"


@pytest.mark.parametrize(
    "spoil", [binary, alone, two_images, two_masks, nothing_known, two_layouts, evil_seg, cut_seg]
)
def test_unusable_data_is_an_error(tmp_path, spoil, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mine"
    message = spoil(folder)
    with pytest.raises(InputError, match=message):
        fetch_dataset("local", tmp_path / "raw", DataParams(path=str(folder)))
    assert not (tmp_path / "raw").exists() and not (tmp_path / "evil_was_run").exists()


def test_a_single_cell_is_not_taken_for_a_binary_mask(tmp_path):
    save(tmp_path / "mine" / "x.png", IMAGES["grey.png"])
    save(tmp_path / "mine" / "x_masks.png", (LABELS == 1).astype(np.uint8))
    assert recognise(tmp_path / "mine") == "cellpose"
    fetch_dataset("local", tmp_path / "raw", DataParams(path=str(tmp_path / "mine")))


def test_local_needs_a_path(tmp_path):
    with pytest.raises(InputError, match=r"needs data\.path"):
        fetch_dataset("local", tmp_path / "raw")


def test_a_relative_path_starts_at_the_root_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
    local = DataParams(path="mine")
    with pytest.raises(InputError) as error:
        fetch_dataset("local", tmp_path / "raw", local)
    assert f"data.path 'mine': there is no folder {tmp_path}/repository/mine" in str(error.value)
    assert "a relative path starts at the repository's root" in str(error.value)
    as_cellpose(tmp_path / "repository" / "mine", "x", IMAGES["grey.png"], ".png")
    assert fetch_dataset("local", tmp_path / "raw", local) == {"images": 1, "masks": 1}
    with pytest.raises(InputError, match="would be lost"):
        fetch_dataset("local", tmp_path / "repository", local, force=True)


@pytest.mark.slow
def test_real_images_named_as_cellpose_does_go_through_all_stages(run_script, pretrained, tmp_path):
    """Drosophila Kc167 cells of the scellseg archive: prepared, trained on, and scored."""
    import tarfile

    from cellular.fetching.downloads import fetch

    archive = fetch("scellseg", catalogue().files["scellseg"])
    folder = tmp_path / "kc167"
    folder.mkdir()
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            if "/contrast_data/Kc167/" in member.name and member.isfile():
                (folder / member.name.rsplit("/", 1)[1]).write_bytes(
                    opened.extractfile(member).read()
                )
    raw, prepared = tmp_path / "raw", tmp_path / "prepared"
    assert (
        run_script("fetch_data", "--dataset", "local", "--path", folder, "--output_dir", raw)[0]
        == 0
    )
    code, out, err = run_script(
        *("prepare_data", "-i", raw / "masks", "-c", raw / "images", "-o", prepared),
        *("-v", "102", "-t", "103"),
    )
    assert code == 0 and "train 3 fields" in out, err
    code, _, err = run_script(
        *("train", "--train_dir", prepared / "all/train", "--valid_dir", prepared / "all/valid"),
        *("--experiments_dir", tmp_path, "--experiment_name", "kc167", "--model_type", pretrained),
        *("--n_epochs", 2, "--crop_size", 112, "--learning_rate", "1e-3", "--cell_diameter", 30),
    )
    assert code == 0, err
    code, out, err = run_script(
        *("eval", "--test_dir", prepared / "all/test", "--output_dir", tmp_path / "scores"),
        *("--model_path", tmp_path / "kc167/models/kc167"),
    )
    assert code == 0 and "AP@0.5" in out, err
    scores = json.loads((tmp_path / "scores/test_eval.json").read_text())
    assert scores["objects"]["average_precision"]["0.5"] > 0.3


def test_git_tracks_the_record_of_hashes():
    listed = subprocess.run(
        ["git", "check-ignore", "data/recorded.yaml"], cwd=ROOT, capture_output=True
    )
    assert listed.returncode == 1 and (ROOT / "data" / "recorded.yaml").exists()


def test_a_damaged_record_of_hashes_is_an_error(site, tmp_path):
    (tmp_path / "recorded.yaml").write_text("remote://cellpose/cyto2torch_0: {size: 1}\n")
    with pytest.raises(InputError, match=r"recorded\.yaml"):
        pretrained_state("cyto2")
