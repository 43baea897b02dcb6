"""Several faults are reported in one error."""

import time

import pytest

from cellular.base.errors import SHOWN_FAULTS, Faults, InputError


def odd(number: int) -> int:
    time.sleep(0.02 / (number + 1))  # later ones finish first
    if number % 2 == 0:
        raise InputError(f"{number} is even")
    return number


def test_results_and_faults_of_threads_keep_the_order_of_the_items():
    faults = Faults()
    assert faults.map(odd, range(6), "test") == [1, 3, 5]
    assert faults == ["0 is even", "2 is even", "4 is even"]


def test_an_error_that_is_no_input_error_ends_the_work_at_once():
    calls = []

    def fail_at_first(number: int) -> None:
        calls.append(number)
        if number == 0:
            raise OSError
        time.sleep(0.01)

    with pytest.raises(OSError):
        Faults().map(fail_at_first, range(10_000), "test")
    assert len(calls) < 10_000


def test_faults_of_faults_are_listed_one_by_one():
    faults = Faults(["first"])
    with faults.collect():
        Faults(["second", "third"]).raise_all("the inner folder")
    with pytest.raises(InputError) as error:
        faults.raise_all("the folder")
    assert str(error.value) == "3 faults in the folder:\n  first\n  second\n  third"


def test_a_single_fault_is_the_message_and_none_is_no_error():
    Faults().raise_all("the folder")
    with pytest.raises(InputError, match=r"^only$"):
        Faults(["only"]).raise_all("the folder")


def test_a_long_list_is_cut_off_and_says_how_many_are_missing():
    with pytest.raises(InputError) as error:
        Faults(str(number) for number in range(SHOWN_FAULTS + 5)).raise_all("the folder")
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + SHOWN_FAULTS + 1 and lines[-1] == "  ... and 5 more"
    assert len(error.value.faults) == SHOWN_FAULTS + 5
