"""The queue of work that threads do ahead: its order, its bounds, its errors and its end."""

import itertools
import os
import subprocess
import sys
import threading
import time

import pytest
from helpers.annotations import ROOT

from cellular.base import queues
from cellular.base.queues import cores, in_order


def counted(taken: list, count: int | None = None):
    """Give numbers from 0 on, and note each one that is taken."""
    for number in itertools.count() if count is None else range(count):
        taken.append(number)
        yield number


@pytest.mark.parametrize("threads", [1, 4])
def test_results_are_in_the_order_of_the_items_however_long_each_takes(threads):
    def slow(number: int) -> int:
        time.sleep((7 * number) % 5 / 500)
        return number * number

    results = in_order(slow, range(30), threads=threads, ahead=6)
    assert list(results) == [number * number for number in range(30)]


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_there_may_be_fewer_items_than_are_taken_ahead(count):
    assert list(in_order(str, range(count), threads=2, ahead=5)) == [*"012"[:count]]


def test_no_more_than_the_given_number_of_items_is_taken_ahead():
    taken: list[int] = []
    results = in_order(lambda number: time.sleep(0.002), counted(taken), threads=3, ahead=4)
    assert taken == []  # nothing begins before it is needed
    for given, _ in enumerate(itertools.islice(results, 20), start=1):
        assert len(taken) - given <= 4
    results.close()


def test_threads_work_while_the_caller_uses_a_result():
    all_taken, done = threading.Event(), threading.Semaphore(0)

    def items():
        yield from range(4)
        all_taken.set()
        yield 4

    def work(number: int) -> None:
        all_taken.wait(5)
        done.release()

    results = in_order(work, items(), threads=1, ahead=4)
    next(results)
    assert all(done.acquire(timeout=5) for _ in range(5))
    results.close()


def test_threads_work_side_by_side():
    together = threading.Barrier(3, timeout=10)
    assert len(list(in_order(lambda _: together.wait(), range(9), threads=3, ahead=3))) == 9


def test_a_result_that_is_there_does_not_wait_for_more_items():
    first_is_done = threading.Event()

    def items():
        yield 0
        assert first_is_done.wait(5)
        time.sleep(0.05)  # the thread has the time to hand its result over
        yield 1
        raise AssertionError("a third item was taken before the first result was given")

    results = in_order(lambda number: first_is_done.set() or number, items(), threads=1, ahead=5)
    assert next(results) == 0
    results.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_of_the_work_is_raised_where_its_result_would_be(threads):
    def fails_at_three(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        return number

    given = []
    with pytest.raises(ValueError, match="three"):
        given.extend(in_order(fails_at_three, range(9), threads=threads, ahead=4))
    results = in_order(fails_at_three, range(9), threads=threads, ahead=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_an_error_of_the_items_is_raised():
    def items():
        yield 1
        raise OSError("unreadable")

    with pytest.raises(OSError, match="unreadable"):
        list(in_order(str, items(), threads=1, ahead=2))


def test_threads_end_when_the_generator_is_exhausted_or_closed_or_fails():
    before = threading.active_count()
    assert list(in_order(str, range(3), threads=2, ahead=2)) == ["0", "1", "2"]
    assert threading.active_count() == before
    chain = in_order(str, in_order(int, itertools.count(), threads=2, ahead=2), threads=2, ahead=2)
    assert next(chain) == "0" and threading.active_count() > before
    del chain
    assert threading.active_count() == before
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 / number, range(9), threads=2, ahead=2))
    assert threading.active_count() == before


def test_work_that_has_not_begun_is_dropped_when_the_generator_is_closed():
    begun, go = [], threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number:
            go.wait(10)
        return number

    results = in_order(work, counted([]), threads=1, ahead=4)
    assert next(results) == 0
    threading.Timer(0.05, go.set).start()
    results.close()
    assert len(begun) <= 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity here")
def test_threads_follow_the_cores_of_this_process():
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from cellular.base.queues import cores; print(cores())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "src", capture_output=True)
    assert done.stdout == b"1\n", done.stderr


@pytest.mark.parametrize(
    ("quota", "most"), [("150000 100000", 2), ("20000 100000", 1), ("max 100000", None)]
)
def test_threads_follow_the_quota_of_a_container(tmp_path, monkeypatch, quota, most):
    monkeypatch.setattr(queues, "QUOTA", tmp_path / "cpu.max")
    allowed = cores()
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert cores() == min(allowed, most or allowed)
