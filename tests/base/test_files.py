"""Outputs: apart from the inputs, whole or not at all, and written by one run at a time."""

import pytest

from cellular.base.errors import InputError
from cellular.base.files import check_apart


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder that is empty but for `read/a.png` and a link to `read`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "read").mkdir()
    (tmp_path / "read" / "a.png").write_text("pixels")
    (tmp_path / "link").symlink_to("read")
    return tmp_path


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (["read"], "read is the same as read, which this run reads"),
        (["x/../read"], "is the same as read"),
        (["link"], "link is the same as read"),
        (["link/new"], "link/new lies in read"),
        (["read/new/deep"], "lies in read"),
        (["new", "new"], "new is the same as new, which this run writes, too"),
        (["new/images", "new"], "new holds new/images, which this run writes, too"),
        (["new", "new/images"], "new/images lies in new"),
        (["."], "holds read"),
        ([""], "holds read"),
        (["new", ".."], "holds read"),
    ],
)
def test_an_output_is_never_an_input_nor_another_output(folder, outputs, message):
    with pytest.raises(InputError, match=message) as error:
        check_apart(outputs, ["read"])
    assert str(error.value).endswith("; files would be lost; choose another output")


def test_the_working_folder_is_never_replaced(folder):
    with pytest.raises(InputError, match=r"holds the working folder"):
        check_apart([folder], [])


def test_neighbours_are_apart(folder):
    check_apart(["read2", "new/a", "new/b", "rea"], ["read", "new/c"])
