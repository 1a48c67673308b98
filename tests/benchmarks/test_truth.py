"""The truth benchmark, small: what its words mean, and that the engine is far ahead of plain geometry."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from benchmarks.truth import __main__ as command
from benchmarks.truth.events import deep_enough
from benchmarks.truth.judged import judge_world
from benchmarks.truth.score import rows_of, wilson
from benchmarks.truth.ways import SETTING, credit, judge
from benchmarks.truth.world import World

MINUTE_US = 60_000_000


def credited(opened_min, confirmed_min, closed_min, events):
    delay_us = np.full(len(events), -1, np.int64)
    of = np.array(events, np.int64).reshape(-1, 2) * MINUTE_US
    edges = (opened_min * MINUTE_US, confirmed_min * MINUTE_US, closed_min * MINUTE_US)
    return credit(*edges, of[:, 0].copy(), of[:, 1].copy(), delay_us), delay_us.tolist()


def test_a_violation_about_no_event_is_false():
    assert credited(10, 10, 11, [(20, 30)]) == (True, [-1])


def test_a_violation_in_an_event_finds_it_with_its_delay():
    assert credited(21, 23, 30, [(20, 30)]) == (False, [3 * MINUTE_US])


def test_what_is_confirmed_long_after_the_end_is_not_false_but_finds_nothing():
    assert credited(21, 35, 36, [(20, 30)]) == (False, [-1])


def series(setting, depths_m):
    """Violations and false ones of one way over fixes a minute apart, with no true event."""
    settings = np.array([setting], SETTING)
    violations, false = np.zeros(1, np.int64), np.zeros(1, np.int64)
    time_us = np.arange(len(depths_m)) * MINUTE_US
    none = np.zeros(0, np.int64)
    judge(
        settings, time_us, np.array(depths_m, np.float32), np.full(len(depths_m), 10, np.float32), 1, 80.0,
        np.array([[0, 1 << 60]]), int(time_us[-1]) + MINUTE_US, none, none, violations, false,
        np.zeros((1, 0), np.int64),
    )  # fmt: skip
    assert false[0] == violations[0]
    return int(violations[0])


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ((0, 1, 0, 0.0, 1.0, np.inf), 3),  # point in polygon: each excursion
        ((0, 2, 0, 0.0, 1.0, np.inf), 2),  # two in a row
        ((0, 1, 5 * MINUTE_US, 0.0, 1.0, np.inf), 0),  # dwell of five minutes
        ((1, 1, 0, 0.0, 1.0, np.inf), 2),  # the circle of 10 m must be outside
        ((0, 1, 0, 0.0, 1.0, 5.0), 0),  # fixes that claim 10 m are thrown away
    ],
)
def test_the_usual_ways_by_hand(setting, expected):
    assert series(setting, [-20, 5, -20, -20, 12, 12, -20, -20, 30, 30, 30, -20, -20]) == expected


@pytest.mark.parametrize("found", [0, 1, 150, 199, 200])
def test_the_interval_holds_the_shares_that_the_count_does_not_refute(found):
    """Its edges are the shares from which the count lies 1.96 standard deviations away."""
    for edge in wilson(found, 200):
        if 1e-9 < edge < 1 - 1e-9:
            assert abs(found / 200 - edge) == pytest.approx(1.959964 * np.sqrt(edge * (1 - edge) / 200))
    low, high = wilson(found, 200)
    assert low <= found / 200 <= high + 1e-12


def test_a_few_days_in_the_city():
    judged = judge_world(World("city", 7, 30, 2))
    rows = rows_of(judged)
    ours = rows[0]
    plain = next(row for row in rows if row["way"] == "point in polygon" and row["plain"])
    assert deep_enough(judged.events).sum() >= 5
    assert ours["found"] == ours["deep_events"] - len(judged.our_missed)
    assert len(judged.our_missed) <= 1
    assert plain["false"] >= 50 * max(ours["false"], 1)


def test_the_report_says_what_its_figures_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["truth", "--devices", "10", "--days", "1", "--seed", "40", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", line)
    monkeypatch.setattr(command, "TUNE", (("city", 1),))
    monkeypatch.setattr(command, "REPORT", (("city", 101), ("storm", 104)))
    monkeypatch.setattr(command, "REST", (("city", 201),))
    assert command.main() == 0
    document = json.loads((tmp_path / "truth.json").read_text())
    assert document["reported_on"] == [["city", 40], ["storm", 41]]
    assert document["resting"][0]["seed"] == 42
    ours = document["ours"]
    assert len(document["our_missed"]) == ours["deep_events"] - ours["found"]
    assert len(document["our_false"]) == ours["false"]
    text = (tmp_path / "index.html").read_text()
    assert f"Ours found {ours['found']} of {ours['deep_events']} deep incursions" in text
    assert document["command"] in text
    for name in ("curve.svg", "delays.svg"):
        picture = (tmp_path / name).read_text()
        assert ET.fromstring(picture).tag.endswith("svg")
        assert picture.strip() in text
    assert str(tmp_path / "index.html") in capsys.readouterr().out.replace("\n", "")
