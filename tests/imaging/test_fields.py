"""Every field has one image, one label map and one split."""

import os

import numpy as np
import pytest
import tifffile
from helpers.annotations import write_png
from hypothesis import given
from hypothesis import strategies as st

from cellular.base.errors import InputError
from cellular.imaging.fields import (
    check_pairs,
    find_images,
    find_masks,
    groups_of,
    load_pairs,
    origin,
    read_classes,
    read_excluded,
    split_by_groups,
    split_data,
)
from cellular.imaging.images import write_labels

LABELS = np.array([[0, 1], [2, 2]], np.uint16)


def test_fields_are_split_by_the_text_in_their_names():
    fields = ["T1_ST_C03_s3", "T1_ST_I06_s1", "T1_ST_D02_s1", "T0_ST_D02_s1"]
    assert split_data(fields) == {
        "train": ["T0_ST_D02_s1", "T1_ST_D02_s1"],
        "valid": ["T1_ST_I06_s1"],
        "test": ["T1_ST_C03_s3"],
    }


def test_a_field_that_matches_both_patterns_is_an_error():
    with pytest.raises(InputError, match=r"x_ST_C03: matches .*'ST_C03'.* and .*'C03'"):
        split_data(["x_ST_C03"], val_pattern="ST_C03", test_pattern="C03")


def test_all_fields_that_match_both_patterns_are_named_at_once():
    with pytest.raises(InputError, match="2 faults") as error:
        split_data(["ab1", "ab2", "a"], "a", "b")
    assert "ab1" in str(error.value) and "ab2" in str(error.value)


FIELDS = [
    "Timepoint_010_p1_C03_s1",
    "Timepoint_010_p1_C03_s2",
    "Timepoint_002_p1_D11_s1",
    "Timepoint_002_p2_C03_s1",
    "Timepoint_001_p2_D02_s3",
]


def names_of(splits: dict[str, list[str]]) -> dict[str, str]:
    """Return the numbers of the fields above in each split, such as 01."""
    return {
        split: "".join(sorted(str(FIELDS.index(field)) for field in fields))
        for split, fields in splits.items()
    }


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("plate", ["p1", "p2"]),
        ("well", ["p1 C03", "p1 D11", "p2 C03", "p2 D02"]),
        ("site", ["p1 C03 s1", "p1 C03 s2", "p1 D11 s1", "p2 C03 s1", "p2 D02 s3"]),
        ("timepoint", ["001", "002", "010"]),
    ],
)
def test_groups_come_in_natural_order(by, groups):
    found = groups_of(FIELDS, by)
    assert sorted(found) == sorted(FIELDS)
    assert list(dict.fromkeys(found.values())) == groups


@pytest.mark.parametrize(
    ("by", "test", "valid", "expected"),
    [
        ("well", ["p1 C03"], ["p2 D02"], {"test": "01", "valid": "4", "train": "23"}),
        ("well", ["D11"], ["D02"], {"test": "2", "valid": "4", "train": "013"}),
        ("well", ["D11"], [], {"test": "2", "valid": "3", "train": "014"}),  # the next
        ("well", ["D02"], [], {"test": "4", "valid": "01", "train": "23"}),  # after the last
        ("well", ["D02", "p1 C03", "D02"], [], {"test": "014", "valid": "2", "train": "3"}),
        ("site", ["s2"], ["C03 s1", "D11 s1"], "stands for p1 C03 s1 and p2 C03 s1"),
        ("site", ["s2"], ["p1 C03 s1"], {"test": "1", "valid": "0", "train": "234"}),
        ("timepoint", ["10"], ["2"], {"test": "01", "valid": "23", "train": "4"}),
        ("timepoint", ["002"], [], {"test": "23", "valid": "01", "train": "4"}),
        ("plate", ["p2"], [], {"test": "34", "valid": "012", "train": ""}),
    ],
)
def test_groups_stay_together(by, test, valid, expected):
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            split_by_groups(FIELDS, by, test, valid)
    else:
        assert names_of(split_by_groups(FIELDS, by, test, valid)) == expected


@pytest.mark.parametrize(
    ("by", "test", "valid", "message"),
    [
        ("plate", [], ["p1"], r"no test group; the plates are p1, p2; .* prepare\.test_groups"),
        ("timepoint", ["3"], [], "test group '3': no such timepoint; .* are 001, 002, 010; name"),
        ("timepoint", ["1 "], [], "no such timepoint"),
        ("well", ["C03"], [], "'C03': stands for p1 C03 and p2 C03; .* --test_groups"),
        ("well", ["D11"], ["03"], "valid group '03': no such well.* --valid_groups"),
        ("well", ["D11"], ["p1 D11"], "well p1 D11: both a test and a validation group"),
        ("well", ["x"], ["y"], "2 faults"),
    ],
)
def test_a_group_that_is_not_one_is_an_error(by, test, valid, message):
    with pytest.raises(InputError, match=message):
        split_by_groups(FIELDS, by, test, valid)


def test_all_fields_whose_names_do_not_tell_the_group_are_named():
    with pytest.raises(InputError, match="2 faults in the split by well") as error:
        groups_of(["mine", "yours", *FIELDS], "well")
    assert "mine: the name does not tell the well, expected Timepoint_" in str(error.value)


@given(st.data())
def test_every_field_is_in_one_split_and_so_is_every_group(data):
    field = st.builds(
        "Timepoint_{:03}_p{}_{}{:02}_s{}".format,
        *(st.integers(1, 12), st.integers(1, 2), st.sampled_from("CK"), st.integers(1, 12)),
        st.integers(1, 3),
    )
    fields = data.draw(st.lists(field, min_size=1, unique=True))
    by = data.draw(st.sampled_from(["plate", "well", "site", "timepoint"]))
    group_of = groups_of(fields, by)
    groups = sorted(set(group_of.values()))
    test = data.draw(st.lists(st.sampled_from(groups), min_size=1, unique=True))
    left = sorted(set(groups) - set(test))
    valid = data.draw(st.lists(st.sampled_from(left), unique=True)) if left else []
    splits = split_by_groups(fields, by, test, valid)
    assert sorted(name for names in splits.values() for name in names) == sorted(fields)
    found = {split: {group_of[name] for name in names} for split, names in splits.items()}
    assert found["test"] == set(test)
    assert found["valid"] == set(valid) or (not valid and len(found["valid"]) == min(1, len(left)))
    assert found["train"] == set(groups) - found["test"] - found["valid"]
    assert split_by_groups(data.draw(st.permutations(fields)), by, test[::-1], valid) == splits


def test_the_image_of_site_10_is_not_taken_for_site_1(tmp_path):
    write_png(tmp_path / "f_s10.png", LABELS)
    write_png(tmp_path / "f_s1_masks.png", LABELS)
    assert list(find_images(tmp_path)) == ["f_s10"]
    with pytest.raises(InputError, match="2 faults") as error:
        load_pairs(tmp_path)
    assert "f_s1_masks.png: no image" in str(error.value)
    assert "no label map f_s10_masks" in str(error.value)


def test_pairs_are_sorted(tmp_path):
    for field in ("b", "a"):
        write_png(tmp_path / f"{field}.jpg", LABELS.astype(np.uint8))
        write_png(tmp_path / f"{field}_masks.png", LABELS)
    assert [(pair.field, pair.image.name) for pair in check_pairs(tmp_path)] == [
        ("a", "a.jpg"),
        ("b", "b.jpg"),
    ]


def test_image_and_masks_that_differ_in_size_are_refused(tmp_path):
    write_png(tmp_path / "a.png", np.zeros((5, 7), np.uint8))
    write_png(tmp_path / "a_masks.png", LABELS)
    with pytest.raises(InputError, match=r"a_masks\.png: 2 x 2 pixels, but .*a\.png has 7 x 5"):
        check_pairs(tmp_path)


def test_a_pixel_without_a_number_is_told_before_anything_is_computed(tmp_path):
    image = np.zeros((2, 2), np.float32)
    image[1, 1] = np.inf
    tifffile.imwrite(tmp_path / "a.tif", image)
    write_png(tmp_path / "a_masks.png", LABELS)
    with pytest.raises(InputError, match=r"a\.tif: 1 of 4 values are NaN, infinite"):
        check_pairs(tmp_path)


def test_a_missing_or_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        load_pairs(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no image with masks"):
        load_pairs(tmp_path)


def test_time_point_well_and_site_are_read_from_the_names_of_the_data_set():
    def known(timepoint: str, well: str, site: str) -> dict[str, str]:
        plate = well.rpartition(" ")[0]
        return {"timepoint": timepoint, "plate": plate, "well": well, "site": f"{well} {site}"}

    assert origin("Timepoint_001_220518-ST_C03_s3") == known("001", "220518-ST C03", "s3")
    assert origin("Timepoint_012_220518-ST_N11_s10") == known("012", "220518-ST N11", "s10")
    for other in ("my_image", "Timepoint_001", "Timepoint_001_220518-ST_C03_s3_left"):
        assert origin(other) == {}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("number,class\n1,fed\n", "expected UTF-8 with the columns label and class"),
        ("label,class\none,fed\n", "a number in each label"),
        ("label,class\n1,fed\n", "1 rows for the 2 labels"),
        ("label,class\n1,fed\n2,fed\n2,fed\n", "3 rows for the 2 labels"),
    ],
)
def test_a_table_of_classes_must_name_every_label_once(tmp_path, table, message):
    write_png(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    write_labels(tmp_path / "a_masks.png", LABELS)
    (tmp_path / "a_classes.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        check_pairs(tmp_path)
    (tmp_path / "a_classes.csv").write_text("label,class\n2,unfed\n1,fed\n")
    assert read_classes(check_pairs(tmp_path)[0]) == ["fed", "unfed"]


def test_files_beside_an_image_are_not_taken_for_images(tmp_path):
    for name in ("a", "a_masks", "a_excluded"):
        write_labels(tmp_path / f"{name}.png", LABELS)
    (pair,) = load_pairs(tmp_path)
    assert (pair.image.name, pair.excluded.name) == ("a.png", "a_excluded.png")
    # annotated cells are not excluded, even where the other map has cells
    assert not read_excluded(pair, LABELS)[LABELS > 0].any()


@pytest.mark.parametrize("ending", ["masks", "excluded"])
def test_two_label_maps_of_one_field_must_be_alike(tmp_path, ending):
    for name in ("a.png", "a_masks.png", f"a_{ending}.png", f"a_{ending}.tif"):
        write_labels(tmp_path / name, LABELS)
    assert load_pairs(tmp_path)[0].labels.name == "a_masks.png"
    write_labels(tmp_path / f"a_{ending}.tif", LABELS * 2)
    with pytest.raises(InputError, match=rf"a_{ending}\.png and a_{ending}\.tif: two label maps"):
        load_pairs(tmp_path)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["f_masks/fed/1.png"], "field 'f_masks': files ending in _masks and _excluded"),
        (["f_excluded.png"], "field 'f_excluded': files ending in"),
        (["f.png", "F.png"], "field 'F' and 'f': names that differ in upper and lower case only"),
        (["f/fed/1.png", "g/Fed/1.png"], "class 'Fed' and 'fed': names that differ"),
        ([b"f/\xff/1.png"], r"class '\\udcff': a name that is not UTF-8 text; rename it"),
        (["f" * 240 + ".png"], "a name of 240 bytes, at most 230"),
    ],
)
def test_names_that_cannot_be_used_are_refused(tmp_path, paths, message):
    for path in map(os.fsdecode, paths):
        write_png(tmp_path / "x.png", LABELS)
        (tmp_path / "masks" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x.png").rename(tmp_path / "masks" / path)
    with pytest.raises(InputError, match=message):
        find_masks(tmp_path / "masks")


def test_names_of_200_characters_spaces_and_umlauts_are_used(tmp_path):
    for path in ("x" * 200 + "/" + "y" * 200 + "/1.png", "ein Fühler/große Zellen/1.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        write_labels(tmp_path / path, LABELS)
    fields, left = find_masks(tmp_path)
    assert [len(field.name) for field in fields] == [10, 200] and not left
