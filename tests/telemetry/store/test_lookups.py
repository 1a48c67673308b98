"""Look-ups that the engine's side asks for, rules and their versions, the outbox."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import psycopg

from geofence import COLUMNS, NO_FIX, NO_SEQ, Devices, Ruleset
from telemetry.columns import AlertChange, Outgoing
from telemetry.store import lookups
from telemetry.store.rows import moment
from tests.telemetry.store.batches import DAY_US, DOCUMENT, NOW_US


def _keys(pings) -> list[tuple]:
    """What makes a ping the same as another, said slowly."""
    keys = []
    for i in range(len(pings)):
        who_and_when = (pings.devices.ids[pings.device[i]], int(pings.fix_time_us[i]))
        if pings.seq[i] == NO_SEQ:
            keys.append((*who_and_when, "place", int(pings.lat_e7[i]), int(pings.lon_e7[i])))
        else:
            keys.append((*who_and_when, "seq", int(pings.boot[i]), int(pings.seq[i])))
    return keys


def _pings(make, rng, n: int):
    """Pings of few devices, times, numbers and places, so that many are nearly the same."""
    return make.pings(
        *[f"d{i}" for i in rng.integers(0, 3, n)],
        fix_time_us=NOW_US - rng.integers(0, 3, n) * DAY_US + rng.integers(0, 2, n),
        boot=rng.integers(-1, 2, n),
        seq=rng.integers(-1, 3, n),
        lat_e7=rng.choice([NO_FIX, 1, 2], n),
        lon_e7=rng.choice([NO_FIX, 1], n),
    )


def test_contains_agrees_with_the_slow_oracle(store, make, monkeypatch):
    rng = np.random.default_rng(5)
    stored = _pings(make, rng, 150)
    store.commit(make.batch(stored))
    known = set(_keys(stored))
    # without a seq any stored ping of that time and place is the same, whatever its own number
    known |= set(_keys(replace(stored, seq=np.full_like(stored.seq, NO_SEQ))))
    asked = _pings(make, rng, 2_000)
    expected = [key in known for key in _keys(asked)]
    assert 0 < sum(expected) < len(expected)
    assert store.contains(asked).tolist() == expected
    monkeypatch.setattr("telemetry.store.lookups.LOOK_UP_PINGS", 97)
    assert store.contains(asked).tolist() == expected
    assert store.contains(asked.take(slice(0, 0))).tolist() == []


def test_contains_uses_the_index_of_the_day_asked(store, make, query, database_url):
    from telemetry.store.lookups import _CONTAINS

    for day in range(5):
        store.commit(
            make.batch(make.pings(*[f"d{i}" for i in range(3_000)], fix_time_us=NOW_US - day * DAY_US))
        )
    query("ANALYZE pings")
    values = {"device_id": ["d1"], "boot": [1], "seq": [1], "lat_e7": [1], "lon_e7": [1]}
    values |= dict.fromkeys(("first", "last"), moment(NOW_US)) | {"fix_time": [moment(NOW_US)]}
    with psycopg.connect(database_url) as connection:
        plan = "\n".join(row[0] for row in connection.execute("EXPLAIN " + _CONTAINS, values))
    assert plan.count("Index Scan") == 1
    assert "Seq Scan" not in plan


def test_history_is_complete_and_in_order(store, make):
    rng = np.random.default_rng(6)
    n = 400
    first = make.pings(
        *["a17"] * n,
        fix_time_us=NOW_US - rng.integers(0, 100, n),
        boot=rng.integers(0, 3, n),
        seq=rng.permutation(n),
    )
    judged = rng.random(n) < 0.7
    store.commit(make.batch(first, judged=judged))
    store.commit(make.batch(make.pings("a17", "b2", fix_time_us=NOW_US - 50, seq=[1_000, 1_001])))
    history = store.history("a17", NOW_US - 60, NOW_US - 10)
    inside = (first.fix_time_us >= NOW_US - 60) & (first.fix_time_us < NOW_US - 10)
    assert sorted(history.seq) == sorted([*first.seq[inside], 1_000])
    keys = list(zip(history.fix_time_us, history.boot, history.seq, strict=True))
    assert keys == sorted(keys)
    assert history.devices.ids == ["a17"]
    devices = Devices(["someone", "a17"])
    earlier = store.history("a17", -(2**63), 2**63 - 1, devices, judged_only=True, before_batch=2)
    assert sorted(earlier.seq) == sorted(first.seq[judged])
    assert set(earlier.device) == {1}


def test_histories_of_many_devices_are_those_of_each(store, make):
    rng = np.random.default_rng(7)
    ids = [f"d{i}" for i in range(9)]
    for _ in range(3):
        some = rng.choice(ids, 200).tolist()
        times_us = NOW_US - rng.integers(0, 3 * DAY_US, 200)
        pings = make.pings(*some, fix_time_us=times_us, seq=rng.permutation(200))
        store.commit(make.batch(pings, judged=rng.random(200) < 0.8))
    devices = Devices(reversed(ids))
    slots = devices.slots(ids[2:7])
    from_us = NOW_US - rng.integers(DAY_US, 3 * DAY_US, 5)
    to_us = from_us + DAY_US
    together = store.histories(devices, slots, from_us, to_us, before_batch=3)
    for slot, begin, end in zip(slots, from_us, to_us, strict=True):
        alone = store.history(devices.ids[slot], begin, end, devices, judged_only=True, before_batch=3)
        assert len(alone) > 0
        of_it = together.take(together.device == slot)
        for name, _, _ in COLUMNS:
            np.testing.assert_array_equal(getattr(of_it, name), getattr(alone, name))
    assert set(together.device) == set(slots)


def test_histories_are_looked_up_by_device_in_the_days_asked(store, make, query, database_url):
    ids = [f"d{i}" for i in range(200)]
    for day in range(5):
        store.commit(make.batch(make.pings(*ids, fix_time_us=NOW_US - day * DAY_US)))
    text = lookups._BETWEEN_EACH.removeprefix("\nCOPY (").rpartition(") TO STDOUT")[0]
    asked = [NOW_US - 2 * DAY_US - 5], [NOW_US - 2 * DAY_US + 5]
    values = {
        "ids": ids[:1],
        "from": [moment(asked[0][0])],
        "to": [moment(asked[1][0])],
        "first": moment(asked[0][0]),
        "last": moment(asked[1][0]),
    }
    with psycopg.ClientCursor(psycopg.connect(database_url)) as cursor:
        plan = "\n".join(line for (line,) in cursor.execute("EXPLAIN " + text, values).fetchall())
    assert plan.count("Index") >= 1
    assert "Seq Scan" not in plan


def test_rules_are_numbered_and_come_back_equal(store, query):
    ruleset = Ruleset.from_document(DOCUMENT)
    assert store.load_ruleset() is None
    assert store.save_ruleset(ruleset.document, ruleset.digest, NOW_US) == 1
    assert store.save_ruleset(ruleset.document, ruleset.digest, NOW_US + 1) == 1
    changed = copy.deepcopy(DOCUMENT)
    changed["zones"]["features"][1]["properties"]["radius_m"] = 150.0
    del changed["zones"]["features"][2]
    del changed["rules"]["rules"][2]
    del changed["rules"]["devices"][0]
    other = Ruleset.from_document(changed)
    assert store.save_ruleset(other.document, other.digest, NOW_US + 2) == 2
    assert store.save_ruleset(ruleset.document, ruleset.digest, NOW_US + 3) == 3
    version, document, effective_us = store.load_ruleset(1)
    assert (version, document, effective_us) == (1, ruleset.document, NOW_US)
    assert Ruleset.from_document(document).digest == ruleset.digest
    assert store.load_ruleset()[0] == 3
    assert store.load_ruleset(9) is None
    assert query("SELECT zone_id, from_version, until_version FROM zones ORDER BY 1, 2") == [
        ("zone-0", 1, None),
        ("zone-1", 1, 2),
        ("zone-1", 2, 3),
        ("zone-1", 3, None),
        ("zone-2", 1, 2),
        ("zone-2", 3, None),
    ]
    assert query(
        "SELECT device_id, participant, groups, from_version, until_version FROM enrollments ORDER BY 1, 4"
    ) == [
        ("a17", "p-1", ["night"], 1, 2),
        ("a17", "p-1", ["night"], 3, None),
        ("b2", None, [], 1, None),
    ]


def test_the_outbox_gives_what_was_not_sent_in_order(store, make):
    for n in range(5):
        store.commit(
            make.batch(outgoing=[Outgoing(n, f"d{n}", f"topic/{n}", bytes([n, 0, 255]), n % 2 == 0)])
        )
    rows = store.pending(3)
    assert [(r.alert_id, r.device_id, r.topic, r.payload, r.retain) for r in rows] == [
        (n, f"d{n}", f"topic/{n}", bytes([n, 0, 255]), n % 2 == 0) for n in range(3)
    ]
    assert all(r.created_us == NOW_US for r in rows)
    store.mark_sent([rows[0].id, rows[2].id])
    assert [r.alert_id for r in store.pending(10)] == [1, 3, 4]
    assert [r.alert_id for r in store.pending(10, after_id=rows[1].id)] == [3, 4]
    store.mark_sent([])


def test_ids_of_the_outbox_grow_in_the_order_of_commits(store, make, database_url, query, eventually):
    """A transaction that has written to the outbox holds the next one back until it ends."""
    import threading

    from telemetry.store.actions import act
    from telemetry.store.rows import OUTBOX_LOCK

    alert = AlertChange(7, "opened", 7, "a17", "rule-1", None, "high", NOW_US, "x")
    store.commit(make.batch(alerts=[alert], outgoing=[Outgoing(7, "a17", "t", b"{}", True)]))
    with psycopg.connect(database_url) as slow:
        steps = act(7, "acknowledge", who="m.ito", note=None, outcome=None, now_us=NOW_US)
        row = None
        try:
            while True:
                cursor = slow.execute(*steps.send(row))
                row = cursor.fetchone() if cursor.description else None
        except StopIteration:
            pass
        thread = threading.Thread(
            target=lambda: store.commit(make.batch(outgoing=[Outgoing(8, "b2", "t", b"{}", True)]))
        )
        thread.start()
        eventually(
            lambda: query(
                "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = %s",
                OUTBOX_LOCK,
            )
        )
        slow.commit()
    thread.join(10)
    assert [r.alert_id for r in store.pending(10)] == [7, 7, 8]
