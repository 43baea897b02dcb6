"""`src/measure.py`: from channels and label maps to tables, numbers, and errors of one line."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import tifffile
from helpers.reporter import PIXEL_SIZE, channels_of, labels_of, write_annotated, write_channels

from cellular.imaging.fields import write_classes
from cellular.imaging.images import write_labels
from cellular.measuring.wells import READOUTS

WELLS = ("C03", "D04", "E05", "I06", "J07", "K08")  # three fed, three starved
TIMES = ("001", "002")


def name_of(well, time):
    return f"Timepoint_{time}_220518-ST_{well}_s1"


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    """Six wells at two time points: cells of starved wells have more puncta, and more red ones."""
    folder = tmp_path_factory.mktemp("plate")
    for split in ("test", "train"):
        (folder / "prepared" / split).mkdir(parents=True)
    (folder / "predictions").mkdir()
    for number, well in enumerate(WELLS):
        for time in TIMES:
            field = name_of(well, time)
            spots, red_only = ((2, 1), (5, 4))[well >= "I"]
            planes = channels_of(spots + number % 2, red_only, seed=number)
            write_channels(folder / "raw/channels", field, planes)
            split = "test" if well in ("C03", "I06") and time == "001" else "train"
            write_annotated(folder / "prepared" / split, field, labels_of())
            classes = [("fed", "unfed")[well >= "I"]] * 3 + ["Unidentified"]
            write_classes(folder / "prepared" / split / f"{field}_classes.csv", classes)
            missing = np.where(labels_of() == 4, 0, labels_of())
            write_labels(folder / "predictions" / f"pred_{field}.png", missing)
    return folder


@pytest.fixture
def arguments(plate, tmp_path):
    return [
        *("measure", plate / "raw", "--labels", f"finetuned={plate / 'predictions'}"),
        *("--annotated", plate / "prepared/test", plate / "prepared/train"),
        *("--pixel_size", PIXEL_SIZE),
        *("--output", tmp_path / "out"),
    ]


def test_tables_of_cells_puncta_fields_and_wells(run_script, arguments, tmp_path):
    code, out, err = run_script(*arguments)
    assert code == 0, err
    assert "12 fields; annotated: 48 cells, 4.0 red puncta a cell; finetuned: 36 cells" in out
    cells = pd.read_csv(tmp_path / "out/cells.csv", dtype={"timepoint": str})
    puncta = pd.read_csv(tmp_path / "out/puncta.csv")
    fields = pd.read_csv(tmp_path / "out/fields.csv")
    wells = pd.read_csv(tmp_path / "out/wells.csv", dtype={"timepoint": str})
    assert len(cells) == 12 * (4 + 3) and set(READOUTS) < set(cells.columns)
    own = cells[(cells["source"] == "annotated") & (cells["field"] == name_of("C03", "001"))]
    assert (own["red_puncta"] == 2).all() and (own["red_only"] == 1).all()
    assert (own["condition"] == "fed").all() and (own["well"] == "220518-ST C03").all()
    assert own["area_um2"].to_numpy() == pytest.approx(own["area"] * PIXEL_SIZE**2, rel=1e-5)
    red = puncta[puncta["channel"] == "red"]
    assert len(red) == cells["red_puncta"].sum()
    assert len(fields) == 24 and fields["flags"].isna().all()
    assert fields["background_red"].between(95, 105).all()
    assert len(wells) == 24 and list(wells["cells"].unique()) == [4, 3]
    course = pd.read_csv(tmp_path / "out/courses/annotated.csv", dtype={"timepoint": str})
    assert list(course["timepoint"]) == list(TIMES)


def test_conclusions_are_of_wells_and_of_judged_fields(run_script, arguments, tmp_path):
    run_script(*arguments)
    found = json.loads((tmp_path / "out.json").read_text())
    contrast = found["contrasts"]["annotated"]["red_puncta"]
    assert contrast["wells"] == {"fed": 3, "starved": 3}
    assert contrast["difference"] == pytest.approx(10 / 3) and contrast["smallest_p"] == 0.1
    assert found["contrasts"]["finetuned"]["red_puncta"]["difference"] == pytest.approx(10 / 3)
    assert found["judged"]["split"] == "test" and len(found["judged"]["fields"]) == 2
    agreement = found["agreement"]["finetuned"]["red_puncta"]
    assert agreement["n"] == 6 and agreement["bias"] == 0 and agreement["concordance"] == 1
    assert found["classes"]["cells"] == {"fed": 18, "unfed": 18}
    assert found["classes"]["wells"] == {"fed": 3, "unfed": 3}
    assert found["classes"]["balanced_accuracy"] == 1  # more puncta, and more that are red only
    assert [cell["kind"] for cell in found["gallery"]] == ["most"] * 6 + ["fewest"] * 6
    assert all((tmp_path / "out" / cell["picture"]).is_file() for cell in found["gallery"])
    costs = pd.read_csv(tmp_path / "out/costs.csv")
    assert set(costs["by"]) == {"field", "well"}
    assert (costs.loc[costs["readout"] == "red_puncta", "outlines"] == 0).all()


def test_label_maps_of_models_that_saw_no_field_are_judged_on_all(run_script, arguments, tmp_path):
    run_script(*arguments, "--judge_all")
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["judged"]["split"] == "all folders" and len(found["judged"]["fields"]) == 12
    assert found["agreement"]["finetuned"]["red_puncta"]["n"] == 36


def test_the_same_input_gives_the_same_bytes(run_script, arguments, tmp_path):
    run_script(*arguments)
    first = {path.name: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    assert run_script(*arguments)[0] == 2  # an output that exists is not replaced
    run_script(*arguments, "--force")
    assert first == {p.name: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()}


def test_the_output_of_segmenting_a_folder_is_measured(run_script, tmp_path):
    red, green = channels_of(4, 2)
    (tmp_path / "segmented/labels").mkdir(parents=True)
    tifffile.imwrite(tmp_path / "segmented/labels/mine.ome.tif", labels_of())
    metadata = {"axes": "CYX", "PhysicalSizeX": PIXEL_SIZE, "PhysicalSizeY": PIXEL_SIZE}
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/mine.ome.tif", np.stack([red, green]), metadata=metadata)
    options = ("--red", 1, "--green", 2, "--output", tmp_path / "out")
    code, out, err = run_script(
        "measure", tmp_path / "images", "--labels", tmp_path / "segmented", *options
    )
    assert code == 0, err
    assert "1 field; cells: 4 cells, 4.0 red puncta a cell" in out
    assert not (tmp_path / "out/costs.csv").exists()
    assert json.loads((tmp_path / "out.json").read_text())["pixel_size"] == PIXEL_SIZE


@pytest.mark.parametrize("cells", [0, 1])
def test_a_field_with_no_cell_or_one(cells, run_script, tmp_path):
    write_channels(tmp_path / "channels", "a", channels_of(4, 2))
    (tmp_path / "labels").mkdir()
    write_labels(tmp_path / "labels/a.png", np.where(labels_of() <= cells, labels_of(), 0))
    options = ("--pixel_size", PIXEL_SIZE, "--output", tmp_path / "out")
    code, out, err = run_script("measure", tmp_path, "--labels", tmp_path / "labels", *options)
    assert code == 0, err
    assert f"cells: {cells} cells" in out or not cells
    assert list(pd.read_csv(tmp_path / "out/fields.csv")["cells"]) == [cells]


def test_a_saturated_channel_is_flagged(run_script, tmp_path):
    red, green = channels_of(4, 2)
    write_channels(tmp_path / "channels", "a", (np.minimum(red, 320), green))
    write_channels(tmp_path / "channels", "b", (np.full_like(red, 65535), green))
    (tmp_path / "labels").mkdir()
    for field in "ab":
        write_labels(tmp_path / f"labels/{field}.png", labels_of())
    options = ("--pixel_size", PIXEL_SIZE, "--output", tmp_path / "out")
    code, out, err = run_script("measure", tmp_path, "--labels", tmp_path / "labels", *options)
    assert code == 0 and "flags in fields.csv" in out, err
    fields = pd.read_csv(tmp_path / "out/fields.csv")
    assert "red saturated" in fields["flags"][0] and "red out of focus" in fields["flags"][1]
    assert pd.read_csv(tmp_path / "out/cells.csv").query("field == 'b'")["red_puncta"].eq(0).all()


def test_unknown_channels_are_an_error_or_a_reason_to_do_nothing(run_script, plate, tmp_path):
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    (tmp_path / "labels").mkdir()
    write_labels(tmp_path / "labels/a.png", np.ones((64, 64), np.uint16))
    command = ("measure", tmp_path, "--labels", tmp_path / "labels", "--output", tmp_path / "out")
    code, out, err = run_script(*command)
    assert (code, out) == (2, "") and "no channel 'w2'" in err
    assert not (tmp_path / "out").exists()
    code, out, err = run_script(*command, "--optional")
    assert code == 0 and "nothing to measure" in out
    assert "no channel 'w2'" in json.loads((tmp_path / "out.json").read_text())["reason"]
    assert list((tmp_path / "out").iterdir()) == []


def test_parameters_that_make_no_sense_are_an_error(run_script, plate, tmp_path):
    command = ("measure", plate / "raw", "--labels", plate / "predictions")
    command += ("--pixel_size", PIXEL_SIZE, "--output", tmp_path / "out")
    for flags, sentence in (
        (("--red", "w1"), "red and green are one channel, w1"),
        (("--conditions", "fed=C*"), "conditions: expected two conditions of different names"),
        (("--conditions", "a=C*", "a=D*"), "conditions: expected two conditions of different"),
        (("--names", "(?P<plate>.*)"), "names: expected a regular expression with a group"),
        (
            ("--labels", f"annotated={plate}"),
            "a name of letters, digits and _ that is not annotated",
        ),
    ):
        code, out, err = run_script(*command, *flags)
        assert (code, out) == (2, "") and sentence in err


def test_names_that_tell_no_well_and_fields_without_label_maps_are_told(run_script, tmp_path):
    for field in "ab":
        write_channels(tmp_path / "channels", field, channels_of(4, 2))
    (tmp_path / "labels").mkdir()
    write_labels(tmp_path / "labels/a.png", labels_of())
    options = ("--pixel_size", PIXEL_SIZE, "--output", tmp_path / "out")
    code, _, err = run_script("measure", tmp_path, "--labels", tmp_path / "labels", *options)
    assert code == 0 and "1 field without a label map left out: b\n" in err
    assert "no name of a field, such as a, tells its well" in err


def test_label_maps_that_do_not_fit_are_one_error(run_script, arguments, plate, tmp_path):
    shutil.copytree(plate / "predictions", tmp_path / "predictions")
    write_labels(tmp_path / f"predictions/pred_{name_of('C03', '001')}.png", labels_of()[:90])
    arguments[3] = f"finetuned={tmp_path / 'predictions'}"
    code, out, err = run_script(*arguments)
    assert (code, out) == (2, "") and "128 x 90 pixels, but the channels of" in err
    assert err.count("error: ") == 1 and not (tmp_path / "out").exists()
    arguments[3] = f"finetuned={tmp_path}/nowhere"
    assert "no label maps" in run_script(*arguments)[2]
    assert "give label maps" in run_script("measure", plate / "raw")[2]
