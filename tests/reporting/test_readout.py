"""The section on the read-out, from made-up tables."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from helpers.readouts import ONE, PLATE, SIX, write_readout

from cellular.base.errors import InputError
from cellular.reporting.parts import number
from cellular.reporting.readout import read_readout
from cellular.reporting.readout_wells import layout_of, places_of
from cellular.reporting.templates import template


def page_of(folder):
    section = read_readout(folder, {"test": {"mine": 0.6}})
    return section, template("readout.html").render(readout=section)


def part(section, title):
    return next(part for part in section.parts if part.title == title)


def change_summary(folder, change):
    found = json.loads((folder / "readout.json").read_text())
    change(found)
    (folder / "readout.json").write_text(json.dumps(found))


def change_table(folder, name, change):
    path = folder / "readout" / f"{name}.csv"
    change(pd.read_csv(path, dtype={"timepoint": str})).to_csv(path, index=False)


def test_without_the_stage_there_is_no_section(tmp_path):
    assert read_readout(tmp_path, {}) is None


def test_a_reason_is_all_that_is_said_if_nothing_was_measured(tmp_path):
    (tmp_path / "readout.json").write_text('{"reason": "It is not known which channel is red."}')
    section, page = page_of(tmp_path)
    assert section.lead == ["It is not known which channel is red."] and not section.parts
    assert "which channel is red" in page and "<h3>" not in page


def test_six_wells_are_on_a_plate_in_a_course_and_compared(tmp_path):
    section, page = page_of(write_readout(tmp_path, SIX))
    assert "here N is 6." in section.lead[0]
    assert "the outlines of mine give these means: red puncta a cell 6." in section.lead[1]
    assert section.lead[2].startswith("mine: ")
    plates = part(section, "Wells").figures
    assert plates[0].caption.endswith("Empty: no value.")
    assert [figure.kind for figure in plates] == ["scrolls wide"] * 2  # C to K: a plate of 384
    courses = part(section, "Course in time")
    assert len(courses.figures) == 2 and len(courses.texts) == 4
    groups = courses.tables[0].groups
    assert list(groups)[:2] == ["area of a cell, µm², fed", "area of a cell, µm², starved"]
    assert all([row[0] for row in rows] == [*"12345"] for rows in groups.values())
    against = part(section, "Starved against fed")
    rows = against.tables[0].groups["red puncta a cell"]
    assert [row[0] for row in rows] == ["annotated", "mine"]
    assert rows[0][4:] == ["0.100", "3 starved and 3 fed"]  # the smallest p of three against three
    assert "N = 3 fed and 3 starved wells, not cells" in against.texts[0]
    assert len(against.folded["By time point"].groups) == 5 * 4
    assert "NaN" not in page and ">nan<" not in page


def test_one_well_has_no_plate_and_no_contrast_and_this_is_said(tmp_path):
    section, _ = page_of(write_readout(tmp_path, ONE))
    assert "here N is 1 (220518-ST C03)." in section.lead[0]
    wells = part(section, "Wells")
    assert not wells.figures and "one well, 220518-ST C03" in wells.texts[0]
    against = part(section, "Starved against fed")
    assert against.texts == ["There is no contrast, since all wells with a value are fed."]
    assert not against.tables
    assert all("annotated" in f.svg and "mine" in f.svg for f in section.parts[2].figures)
    class_of = part(section, "Class of a cell")
    assert "there is no result" in class_of.texts[0] and not class_of.tables


def test_one_time_point_has_no_course(tmp_path):
    section, _ = page_of(write_readout(tmp_path, ONE, times=1))
    assert not part(section, "Course in time").figures


def test_time_points_are_drawn_in_the_order_of_their_numbers(tmp_path):
    folder = write_readout(tmp_path, ONE)
    texts = {"002": "10", "003": "2", "004": "x"}
    change_table(folder, "wells", lambda table: table.replace({"timepoint": texts}))
    course = part(page_of(folder)[0], "Course in time")
    line = max(re.findall(r'<path d="(M [^"]*)" clip-path', course.figures[0].svg), key=len)
    x = [float(place) for place in re.findall(r"[ML] (\S+) ", line)]
    assert len(x) == 4 and x == sorted(x)
    rows = course.tables[0].groups["area of a cell, µm²"]
    assert [row[0] for row in rows] == ["1", "2", "5", "10"]


def test_a_source_without_cells_is_in_no_figure_and_a_model_without_any_is_told(tmp_path):
    folder = write_readout(tmp_path, ONE)
    change_summary(folder, lambda found: found["sources"].update(none={"cells": 0, "means": {}}))
    section, _ = page_of(folder)
    assert "20 (mine), 0 (none)" in section.lead[0]
    assert {row[-1] for row in section.parts[0].tables[0].groups[""]} == {"–"}
    assert not any("none<" in figure.svg for of in section.parts for figure in of.figures)
    change_table(folder, "fields", lambda table: table[table["source"] != "mine"])
    change_table(folder, "costs", lambda table: table.head(0))
    section, _ = page_of(folder)
    assert "no mean of mine is compared" in section.lead[1]
    assert section.lead[2] == "mine: it finds no cell there."
    assert part(section, "Who is found, and who is missed").texts == [section.lead[2]]


@pytest.mark.parametrize("sources", [{}, {"annotated": {"cells": 0, "means": {}}}])
def test_without_any_cell_there_is_a_sentence(tmp_path, sources):
    folder = write_readout(tmp_path, ONE)
    change_summary(folder, lambda found: found.update(sources=sources))
    change_table(folder, "wells", lambda table: table.head(0))
    section, _ = page_of(folder)
    assert section.lead == ["There is no cell in any field, so nothing is read."]
    assert [of.title for of in section.parts] == ["Quality of the fields"]


def test_unknown_wells_are_told(tmp_path):
    folder = write_readout(tmp_path, ONE)
    none = {"courses": {}, "contrasts": {}, "contrasts_by_time": {}}
    change_summary(folder, lambda found: found.update(none))
    change_table(folder, "wells", lambda table: table.head(0))
    section, _ = page_of(folder)
    assert "N is unknown, since no name of a field tells its well. Cells" in section.lead[0]
    assert part(section, "Wells").texts == ["There is no well that is known, so no plate is drawn."]
    assert "names no two conditions" in part(section, "Conditions").texts[0]


def test_without_annotated_puncta_no_change_is_given_in_percent(tmp_path):
    folder = write_readout(tmp_path, ONE)
    change_table(folder, "bearing", lambda table: table.assign(mean=table["difference"]))
    zero = {"annotated": 0, "predicted": 2, "difference": 2}
    change_table(folder, "costs", lambda table: table.assign(**zero))
    section, _ = page_of(folder)
    assert "red puncta a cell 2.00, annotated 0.00 (– %)" in section.lead[1]
    bearing = part(section, "How much error the read-out bears")
    assert not bearing.figures and "above 0" in bearing.texts[0]


def test_a_field_without_annotated_puncta_does_not_count_in_the_curve(tmp_path):
    folder = write_readout(tmp_path, ONE)
    before = part(page_of(folder)[0], "How much error the read-out bears")
    change_table(
        folder,
        "bearing",
        lambda table: pd.concat([table, table.assign(field="b", mean=table["difference"])]),
    )
    assert part(page_of(folder)[0], "How much error the read-out bears") == before


def test_each_of_96_wells_has_its_value_and_room_for_it(tmp_path):
    section, page = page_of(write_readout(tmp_path, PLATE))
    for figure in part(section, "Wells").figures:
        width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', figure.svg).groups())
        assert f"--least: {figure.width}px" in page and width <= figure.width + 1 < 600
        texts = re.findall(r"<text [^>]*font-size: 10px[^>]* x=\"(\S+)\" y=\"(\S+)\"", figure.svg)
        values = re.findall(r"font-size: 10px[^>]*>(\d[\d.]*)<", figure.svg)
        assert len(texts) == len(values) == 96
        places = np.array(texts, float)
        x, y = (np.unique(places[:, axis].round(1)) for axis in (0, 1))
        assert (x.size, y.size) == (12, 8)
        # a digit is 0.64 of the size of its letters wide in the widest of common fonts
        assert np.diff(x).min() > 0.64 * 10 * max(map(len, values)) and np.diff(y).min() > 10
        assert x.min() > 10 and x.max() < width - 10 and y.max() < height


def test_wells_lie_where_their_names_say():
    places = places_of(["A01", "P 2 AF48", "P 1 H12", "C3", "well", "Q00", "Z49"])
    assert places == {
        "": {(0, 0): "A01", (2, 2): "C3"},
        "P 1": {(7, 11): "P 1 H12"},
        "P 2": {(31, 47): "P 2 AF48"},
    }


@pytest.mark.parametrize(
    ("wells", "layout"),
    [
        (["H12"], (8, 12)),
        (["I01"], (16, 24)),
        (["A13"], (16, 24)),
        (["Q1"], (32, 48)),
        ([], (8, 12)),
    ],
)
def test_the_smallest_plate_that_has_all_wells_is_drawn(wells, layout):
    assert layout_of(places_of(wells)) == layout


def test_the_curve_says_how_much_error_is_borne(tmp_path):
    section, _ = page_of(write_readout(tmp_path, ONE))
    bearing = part(section, "How much error the read-out bears")
    text = "if outlines are moved inwards by up to 1 px (AP@0.5 0.90)"  # 2 px: 20 % less
    assert text in bearing.texts[0]
    assert "up to 10 % of the cells are merged (AP@0.5 0.99)" in bearing.texts[0]
    assert ">mine<" in bearing.figures[0].svg  # its own AP


def test_pictures_have_their_numbers_below_them(tmp_path):
    section, _ = page_of(write_readout(tmp_path, ONE))
    most, fewest = part(section, "Cells with most and fewest red puncta").pictures
    assert most.title.startswith("most: 7 red puncta, 71 % of them without green; 2 green puncta")
    assert "300 µm² (annotated cell 1 of 220518-ST C03 1)" in most.title
    assert fewest.title.startswith("fewest: 7 red puncta; 2 green")


def test_flagged_fields_are_listed_once(tmp_path):
    folder = write_readout(tmp_path, ONE)
    change_table(folder, "fields", lambda table: table.assign(flags="red saturated"))
    (table,) = part(page_of(folder)[0], "Quality of the fields").tables
    assert len(table.groups[""]) == 5 and table.groups[""][0][1] == "red saturated"


def test_names_are_escaped_and_two_sections_are_the_same(tmp_path):
    section, page = page_of(
        write_readout(tmp_path, {'<b>"\\1 A01': "fed", '<b>"\\1 A02': "starved"})
    )
    assert "<b>&#34;" not in page and '<b>"' not in page
    assert read_readout(tmp_path, {"test": {"mine": 0.6}}) == section


def test_a_missing_table_is_told(tmp_path):
    (tmp_path / "readout.json").write_text("{}")
    with pytest.raises(InputError, match=r"wells\.csv does not exist"):
        read_readout(tmp_path, {})


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8998, "0.900"), (14, "14.0"), (999.6, "1000"), (0, "0.00"), (-0.0, "0.00"), (None, "–")],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text
