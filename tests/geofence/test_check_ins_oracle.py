"""Check-ins against a few lines of plain Python that follow docs/decisions.md, 6.6 to 6.8."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from geofence import CLOSED, HELD_BACK, NO_TIME, OPENED, Engine
from geofence.calls import call_times
from tests.geofence.engine_worlds import START_US, ruleset

MINUTE = 60_000_000
DAY = 24 * 60 * MINUTE
KEY = "c2l4dGVlbiBieXRlcyBvciBtb3JlIG9mIGl0"


@dataclass(frozen=True, order=True)
class Call:
    time_us: int
    outcome: str
    method: str = "voice"
    device_id: str = "d0"


def within(windows, t):
    return any(begin <= t < end for begin, end in windows)


def fates(windows, grace_us, calls, until_us):
    """(change, opened, closed) of every row, in order, of calls that come in order.

    windows : those that begin after the device was first heard of
    """
    rows, opened_us, verified_us = [], None, NO_TIME
    deadlines = [(end + grace_us, 1, begin, None) for begin, end in windows if end + grace_us <= until_us]
    events = [*deadlines, *((call.time_us, 0, 0, call) for call in calls)]
    for t, _, begin, call in sorted(events, key=lambda event: event[:2]):
        if call is None:
            if opened_us is None and verified_us < begin:
                opened_us = t
                rows.append((OPENED, t, NO_TIME))
        elif call.outcome == "verified":
            start, end = next((w for w in windows if w[1] > t - grace_us), (NO_TIME, NO_TIME))
            if opened_us is None and end <= t < end + grace_us and verified_us < start:
                rows.append((HELD_BACK, end, t))
            if opened_us is not None:
                rows.append((CLOSED, opened_us, t))
                opened_us = None
            verified_us = t
        elif call.outcome == "failed" and opened_us is None and verified_us < t and within(windows, t):
            opened_us = t
            rows.append((OPENED, t, NO_TIME))
    return rows


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_check_ins_agree_with_the_oracle(seed):
    rng = random.Random(seed)
    one = {"id": "r", "subjects": ["all"], "require": "check_in", "when": "13:00-14:00,15:00-15:10"}
    one |= {"grace": f"{rng.choice([0, 5, 20])} min"}
    one |= rng.choice([{}, {"answer_within": "7 min"}, {"answer_within": "3 min", "calls": 2}])
    rules = ruleset([one], call_key=KEY)
    until_us = START_US + 3 * DAY
    windows = [(begin, end) for _, begin, end in call_times(rules, "d0", START_US, until_us + DAY)]
    edges = [t for window in windows[:8] for t in window]
    times = sorted({max(START_US + 1, rng.choice(edges) + rng.randrange(-9, 25) * MINUTE) for _ in range(8)})
    until_us = max(until_us, times[-1])
    calls = [Call(t, rng.choice(["verified", "failed", "no_answer"])) for t in times]

    engine, rows = Engine(rules), []
    engine.enlist(engine.devices.slots(["d0"]))
    first = Call(START_US, "no_answer")  # so the device is heard of
    rows += list(engine.check_in([first]).violations)
    for call in calls:
        if rng.random() < 0.5:
            rows += list(engine.tick(call.time_us - rng.choice([1, MINUTE])).violations)
        if rng.random() < 0.3:
            engine = Engine.restore(rules, engine.snapshot())
        rows += list(engine.check_in([call]).violations)
    rows += list(engine.tick(until_us).violations)
    said = [(int(r["change"]), int(r["opened_us"]), int(r["closed_us"])) for r in rows]
    assert said == fates(windows, rules.rules[0].grace_us, calls, until_us)
