"""Versions wait for their time; of those whose time has come each rules its own stretch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geofence import Ruleset
from telemetry.judging import RulesVersion
from telemetry.rules_watch import RulesSchedule

EMPTY = Ruleset.from_document({"zones": {"type": "FeatureCollection", "features": []}, "rules": {}})


def in_force(times: list[int], now: int) -> int:
    """The rule as it is written down: the newest of the versions whose time has come."""
    return max((version for version, time in enumerate(times, 1) if time <= now), default=0)


@given(
    times=st.lists(st.integers(0, 20), max_size=6),
    order=st.randoms(use_true_random=False),
    looks=st.lists(st.integers(0, 25), min_size=1, max_size=8),
)
def test_whenever_one_asks_the_version_in_force_is_reached(times, order, looks):
    schedule = RulesSchedule()
    versions = [RulesVersion(number, EMPTY, time) for number, time in enumerate(times, 1)]
    order.shuffle(versions)
    for version in versions:
        schedule.add(version)
    current, adopted = 0, []
    for now in sorted(looks):
        while (due := schedule.due(now, current)) is not None:
            assert due.effective_us <= now
            current = due.version
            adopted.append(due)
        assert current == in_force(times, now)
    assert [rules.version for rules in adopted] == sorted({rules.version for rules in adopted})
    assert [rules.effective_us for rules in adopted] == sorted(rules.effective_us for rules in adopted)


def test_what_is_known_already_is_not_adopted_again():
    schedule = RulesSchedule()
    schedule.add(RulesVersion(3, EMPTY, 10))
    assert schedule.due(20, 3) is None
