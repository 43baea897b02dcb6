"""The read-out of a user's own plate through the whole pipeline, and of pictures without one."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from helpers.reporter import PIXEL_SIZE, channels_of, labels_of

from cellular.imaging.images import write_labels

pytestmark = pytest.mark.slow

SPOTS = {"fed": (2, 1), "starved": (5, 4)}  # puncta a cell, and how many of them are red only
FED, STARVED = ("C03", "D04", "E05"), ("I06", "J07", "K08")
WELLS = dict.fromkeys(FED, "fed") | dict.fromkeys(STARVED, "starved")


def write_plate(folder):
    """Write six wells at two time points: images of two channels, 16 bits, and label maps."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number, (well, condition) in enumerate(WELLS.items()):
        spots, red_only = SPOTS[condition]
        for time in (1, 2):
            field = f"Timepoint_{time:03d}_mine_{well}_s1"
            planes = np.stack(channels_of(spots + number % 2, red_only, seed=2 * number + time))
            tifffile.imwrite(folder / "images" / f"{field}.tif", planes, ome=True)
            write_labels(folder / "masks" / f"{field}.tif", labels_of())


@pytest.fixture(scope="module")
def plate(finished_pipeline, tmp_path_factory):
    """A repository in which the pipeline was run on the plate, with quick parameters."""
    folder = tmp_path_factory.mktemp("plate")
    write_plate(folder / "my plate")
    repository = finished_pipeline.clone(folder / "repository")
    repository.change("data", path=str(folder / "my plate"), pixel_size=PIXEL_SIZE)
    repository.change("prepare", val_pattern="_J07_", test_pattern="_K08_")
    repository.change("train", min_train_masks=4)
    repository.change("measure", red="1", green="2")
    repository.commit("my plate")
    assert "measure" in repository.repro()
    repository.commit("measured")
    return repository


def test_wells_of_a_plate_are_measured_and_compared(plate):
    wells = pd.read_csv(plate.folder / "metrics/readout/wells.csv", dtype=str)
    rows = wells[wells["source"] == "annotated"]
    assert list(rows[["well", "condition", "timepoint"]].itertuples(index=False, name=None)) == [
        (f"mine {well}", condition, time)
        for well, condition in WELLS.items()
        for time in ("001", "002")
    ]
    found = plate.json("metrics/readout.json")
    assert found["pixel_size"] == PIXEL_SIZE
    contrast = found["contrasts"]["annotated"]
    # Every other well has one punctum more, double in red and green: 7/3 in fed, 17/3 in starved.
    assert contrast["red_puncta"]["difference"] == pytest.approx(10 / 3)
    assert contrast["red_puncta"]["claimed"] and contrast["red_only_fraction"]["claimed"]
    assert contrast["red_only_fraction"]["means"] == pytest.approx(
        {"fed": (1 / 2 + 1 / 3 + 1 / 2) / 3, "starved": (4 / 6 + 4 / 5 + 4 / 6) / 3}
    )


def test_models_are_judged_on_the_test_fields_and_the_summary_says_how(plate):
    found = plate.json("metrics/readout.json")
    assert found["judged"]["split"] == "test"
    assert all("_K08_" in field for field in found["judged"]["fields"])
    assert found["agreement"].keys() == {"pretrained", "finetuned"}
    readout = plate.json("metrics/summary.json")["readout"]
    assert readout["red_puncta_error"] == round(found["errors"]["finetuned"]["red_puncta"], 4)


def test_another_contrast_runs_what_depends_on_it_and_is_compared_with_the_run_before(plate):
    assert "Data and pipelines are up to date" in plate.dvc("repro")
    plate.change("measure", contrast=9.0)  # more than any punctum has
    assert plate.repro() == {"check_params", "measure", "compare", "report"}
    shown = json.loads(plate.dvc("plots", "diff", "HEAD", "workspace", "--json"))["data"]
    values = shown["Red puncta a cell, by time point"][0]["content"]["data"]["values"]
    assert {
        (row["rev"], row["timepoint"], float(row["red_puncta"]))
        for row in values
        if row["filename"] == "annotated.csv"
    } == {
        *(("HEAD", "001", 4.0), ("HEAD", "002", 4.0)),
        *(("workspace", "001", 0.0), ("workspace", "002", 0.0)),
    }
    plate.restore()


def test_pictures_without_known_channels_are_no_obstacle(repository):
    reason = repository.json("metrics/readout.json")["reason"]
    assert "no channel 'w2'" in reason and "measure.red" in reason
    assert "readout" not in repository.json("metrics/summary.json")
    assert (repository.folder / "metrics/report.html").exists()
