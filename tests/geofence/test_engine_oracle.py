"""The engine against the oracle in plain Python, and the properties that make its decisions reproducible."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from geofence import Engine
from tests.geofence.engine_worlds import (
    View,
    by_time,
    columns,
    open_rows_agree,
    random_rules,
    random_track,
    ruleset,
    split,
)
from tests.naive_engine import NaiveDevice

seeds = st.integers(0, 2**32)
DAY = 86_400_000_000


def judged(ruleset, tracks, until_us=None, watermark_us=None):
    engine, view = Engine(ruleset), View()
    for device_id in tracks:
        engine.devices.slot(device_id)
    if watermark_us is not None:
        view.add(engine.tick(watermark_us))
    view.add(engine.check(columns(engine.devices, tracks)))
    if until_us is not None:
        view.add(engine.tick(until_us))
    open_rows_agree(engine, view)
    return engine, view


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_it_agrees_with_the_oracle(seed):
    rng = random.Random(seed)
    rules = random_rules(rng)
    track = random_track(rng, rng.randrange(1, 60))
    until_us = track[-1].time_us + rng.choice([0, 1_000_000, 600_000_000, DAY])
    violations, transitions = NaiveDevice(rules, "d0").run(track, until_us, watermark_us=until_us)
    _, view = judged(rules, {"d0": track}, until_us, watermark_us=until_us)
    assert view.transitions() == transitions
    assert view.violations() == violations


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_cuts_order_and_snapshots_change_nothing(seed):
    rng = random.Random(seed)
    rules = random_rules(rng)
    tracks = {f"d{k}": random_track(rng, rng.randrange(1, 30)) for k in range(4)}
    end_us = max(track[-1].time_us for track in tracks.values()) + DAY
    engine, whole = judged(rules, tracks, end_us)
    pings = by_time(columns(engine.devices, tracks))

    parts, view = Engine(rules), View()
    for device_id in sorted(tracks, key=lambda _: rng.random()):
        parts.devices.slot(device_id)
    renamed = [engine.devices.slot(device_id) for device_id in parts.devices.ids]
    for part in split(rng, pings, 6):
        shuffled = part.take(np.array(rng.sample(range(len(part)), len(part)), np.intp))
        mine = {
            name: getattr(shuffled, name) for name in type(shuffled).__dataclass_fields__ if name != "devices"
        }
        mine["device"] = np.array(
            [parts.devices.slot(engine.devices.ids[d]) for d in shuffled.device], np.int32
        )
        view.add(parts.check(type(pings)(devices=parts.devices, **mine)))
        if rng.random() < 0.5:
            blob = parts.snapshot()
            parts = Engine.restore(rules, blob)
            assert parts.snapshot() == blob
    view.add(parts.tick(end_us))
    open_rows_agree(parts, view)
    assert set(view.rows) == set(whole.rows)  # ids follow from what they name, not from numbers of devices
    for mine, other in enumerate(renamed):
        assert view.violations(mine) == whole.violations(other)
        assert view.transitions(mine) == whole.transitions(other)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_the_cadence_of_ticks_changes_nothing(seed):
    rng = random.Random(seed)
    rules = random_rules(rng)
    while any(rule.require == "contact" for rule in rules.rules):  # silence counts up to the watermark only
        rules = random_rules(rng)
    track = random_track(rng, rng.randrange(2, 40))
    end_us = track[-1].time_us + DAY
    _, once = judged(rules, {"d0": track}, end_us)
    engine, view = Engine(rules), View()
    every = columns(engine.devices, {"d0": track})
    for k, ping in enumerate(track):
        view.add(engine.tick(ping.time_us - rng.choice([1, 1_000_000, 100_000_000])))
        decided = view.add(engine.check(every.take(slice(k, k + 1))))
        assert not decided.late.any()
    view.add(engine.tick(end_us))
    open_rows_agree(engine, view)
    assert view.violations() == once.violations()
    assert view.transitions() == once.transitions()


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_late_delivery_ends_in_the_same_view(seed):
    rng = random.Random(seed)
    rules = random_rules(rng)
    track = random_track(rng, rng.randrange(2, 40))
    end_us = track[-1].time_us + 600_000_000
    _, in_order = judged(rules, {"d0": track}, end_us, watermark_us=end_us)
    engine, view = Engine(rules), View()
    slot = engine.devices.slot("d0")
    every = columns(engine.devices, {"d0": track})
    arrival = (
        rng.sample(range(len(track)), len(track)) if rng.random() < 0.5 else list(range(len(track)))[::-1]
    )
    arrived: list[int] = []
    view.add(engine.tick(end_us))
    while arrival:
        n = rng.randrange(1, 1 + len(arrival))
        part, arrival = arrival[:n], arrival[n:]
        arrived += part
        decided = view.add(engine.check(every.take(np.array(part, np.intp))))
        if decided.late.any() or rng.random() < 0.2:
            view.add(engine.rejudge(every.take(np.array(arrived, np.intp))))
        if rng.random() < 0.3:
            engine = Engine.restore(rules, engine.snapshot())
            every = columns(engine.devices, {"d0": track})
        if rng.random() < 0.5:
            view.add(engine.tick(end_us))
            open_rows_agree(engine, view)
    view.add(engine.tick(end_us))
    open_rows_agree(engine, view)
    assert view.violations(slot) == in_order.violations(slot)
    assert view.transitions(slot) == in_order.transitions(slot)
    again = engine.rejudge(every)
    assert not len(again)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_pings_that_overtake_each_other_end_in_the_same_view(seed):
    rng = random.Random(seed)
    rules = random_rules(rng)
    track = random_track(rng, rng.randrange(6, 40))
    end_us = track[-1].time_us + 600_000_000
    _, in_order = judged(rules, {"d0": track}, end_us)
    engine, view = Engine(rules), View()
    slot = engine.devices.slot("d0")
    every = columns(engine.devices, {"d0": track})
    arrival = sorted(range(len(track)), key=lambda k: k + (rng.uniform(0, 6) if rng.random() < 0.3 else 0))
    for n, k in enumerate(arrival, 1):
        if view.add(engine.check(every.take(np.array([k], np.intp)))).late.any():
            view.add(engine.rejudge(every.take(np.array(arrival[:n], np.intp))))
        if rng.random() < 0.2:
            engine = Engine.restore(rules, engine.snapshot())
            every = columns(engine.devices, {"d0": track})
    view.add(engine.tick(end_us))
    open_rows_agree(engine, view)
    assert view.violations(slot) == in_order.violations(slot)
    assert view.transitions(slot) == in_order.transitions(slot)


def test_want_of_room_only_interrupts(monkeypatch):
    rng = random.Random(7)
    everyone = {"subjects": ["all"]}
    rules = ruleset(
        [
            {
                "id": "a",
                **everyone,
                "require": "outside",
                "layer": "schools",
                "when": "12:00-12:10,12:15-12:20",
            },
            {"id": "b", **everyone, "require": "strap_closed"},
            {
                "id": "c",
                "subjects": ["device:d3"],
                "require": "inside",
                "zones": ["home"],
                "when": "20:00-06:00",
            },
        ]
    )
    tracks = {f"d{k}": random_track(rng, 30) for k in range(20)}
    end_us = max(track[-1].time_us for track in tracks.values()) + 30 * DAY
    _, roomy = judged(rules, tracks, end_us)
    monkeypatch.setattr("geofence.engine._FIRST_ROOM", 2)
    _, tight = judged(rules, tracks, end_us)
    assert tight.violations() == roomy.violations()
    assert tight.transitions() == roomy.transitions()
    assert len(roomy.rows) > 40
