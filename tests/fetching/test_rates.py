"""Rates: no server is asked more often than it allows, by however many processes."""

import json
import subprocess
import sys

import pytest
from helpers.annotations import ROOT
from helpers.server import serving
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.util import Retry

from cellular.base.files import cache_dir
from cellular.fetching.downloads import session
from cellular.fetching.members import _http
from cellular.fetching.rates import ZENODO, Paced, wait_for_turn

LIMITS = ((3, 10), (5, 60))


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self, now=1_000_000):
        self.now = now

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CELLULAR_CACHE", str(tmp_path))


def turns(path, clock, count, limits=LIMITS):
    times = []
    for _ in range(count):
        wait_for_turn(path, limits, clock, clock.sleep)
        times.append(clock.now - 1_000_000)
    return times


def test_turns_are_the_first_that_the_limits_allow(tmp_path):
    assert turns(tmp_path / "x.json", Clock(), 7) == [0, 0, 0, 10, 10, 60, 60]


@settings(max_examples=20)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=25))
def test_no_window_has_more_requests_than_allowed(tmp_path_factory, pauses):
    path, clock, times = tmp_path_factory.mktemp("rates") / "x.json", Clock(), []
    for pause in pauses:
        clock.sleep(pause)
        times += turns(path, clock, 1)
    for most, seconds in LIMITS:
        assert all(b - a >= seconds for a, b in zip(times, times[most:], strict=False))


def test_who_waits_keeps_a_place_and_does_not_stop_others(tmp_path):
    """Ten ask at one moment, none of which has waited yet."""
    waits = []
    for _ in range(10):
        wait_for_turn(tmp_path / "x.json", LIMITS, lambda: 1_000_000, waits.append)
    assert waits == [0, 0, 0, 10, 10, 60, 60, 60, 70, 70]


@pytest.mark.parametrize("content", ["", "{", '{"times": [9e9, 9e9, 9e9, 9e9, 9e9]}'])
def test_a_broken_record_and_a_wrong_clock_do_not_stop_us(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    assert turns(tmp_path / "x.json", Clock(), 4) == [0, 0, 0, 10]


PROGRAM = """
import sys, pathlib
sys.path.insert(0, "src")
from cellular.fetching.rates import wait_for_turn
for _ in range(5):
    wait_for_turn(pathlib.Path({path!r}), ((1000, 3600),), sleep=lambda seconds: None)
"""


def test_processes_share_the_record(tmp_path):
    program = PROGRAM.format(path=str(tmp_path / "x.json"))
    running = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) for _ in range(2)]
    assert [each.wait() for each in running] == [0, 0]
    assert len(json.loads((tmp_path / "x.json").read_text())["times"]) == 10


def test_each_request_to_the_server_takes_a_turn():
    with serving({"/x": b"x"}) as site, session() as http:
        http.mount(site.root, Paced(((2, 0.0625), (100, 60)), Retry(0)))
        for _ in range(5):
            assert http.get(site.url).content == b"x"
    times = json.loads((cache_dir() / "requests-127.0.0.1.json").read_text())["times"]
    assert len(times) == len(site.requests) == 5
    assert all(b - a > 0.0624 for a, b in zip(times, times[2:], strict=False))


def test_zenodo_is_asked_at_its_published_rate_and_mirrors_as_one_likes():
    zenodo = _http().get_adapter("https://zenodo.org/records/8315423/files/images.zip")
    assert isinstance(zenodo, Paced) and zenodo.limits == ZENODO == ((60, 60), (2000, 3600))
    for mirror in ("https://zenodo.org.example.com/images.zip", "http://127.0.0.1/images.zip"):
        assert not isinstance(_http().get_adapter(mirror), Paced)
