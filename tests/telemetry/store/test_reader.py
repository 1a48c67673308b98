"""The reading side: what console and API ask, on a real database."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import astuple, replace

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofence import AMENDED, CLOSED, NO_ACCURACY, NO_FIX, NO_SEQ, UNKNOWN_U8, UNKNOWN_U16, WITHDRAWN
from telemetry.columns import AlertChange, CommandResult, DeviceStatus, Outgoing
from telemetry.store import AlertConflict, BadCursor, NoSuchAlert, Reader, StoreError, StoreUnavailable
from telemetry.store.cursors import read_cursor, write_cursor
from tests.telemetry.store.batches import DAY_US, DOCUMENT, NOW_US


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Reader]:
    reader = Reader(url)
    await reader.open()
    try:
        yield reader
    finally:
        await reader.close()


def ask(url: str, question):
    """Run one coroutine function of a reader."""

    async def run():
        async with reading(url) as reader:
            return await question(reader)

    return asyncio.run(run())


async def walk(listing, limit: int, **filters) -> list:
    """All pages of a list."""
    items, cursor = [], None
    while True:
        page = await listing(cursor=cursor, limit=limit, **filters)
        assert len(page.items) <= limit
        items += page.items
        if page.next is None:
            return items
        assert len(page.items) == limit
        cursor = page.next


def test_reader_fulfils_what_the_api_asks(database_url):
    from telemetry.api.reader import Reader as Protocol

    asked = {name for name in vars(Protocol) if not name.startswith("_")}
    assert asked
    assert asked <= {name for name in dir(Reader) if not name.startswith("_")}


def test_devices_join_roster_status_and_alerts(store, make, database_url):
    store.save_ruleset(DOCUMENT, "digest", NOW_US)
    store.commit(
        make.batch(
            make.pings("a17", "c3", fix_time_us=[NOW_US, NOW_US - 5], battery_pct=[80, 255]),
            statuses=[DeviceStatus("a17", True, NOW_US), DeviceStatus("d4", False, NOW_US)],
            alerts=[
                AlertChange(n, "opened", n, "a17", "rule-1", None, "high", NOW_US, "x") for n in (1, 2, 3)
            ],
        )
    )
    store.record_alert_action(2, "acknowledge", "m.ito")
    store.record_alert_action(3, "resolve", "m.ito", outcome="false")

    async def question(reader):
        return await walk(reader.devices, 3), await walk(reader.devices, 1), await reader.device("nobody")

    devices, one_by_one, nobody = ask(database_url, question)
    assert nobody is None
    assert [astuple(d) for d in one_by_one] == [astuple(d) for d in devices]
    assert [
        (d.device_id, d.kind, d.participant, list(d.groups), d.online, d.open_alerts) for d in devices
    ] == [
        ("a17", "ankle", "p-1", ["night"], True, 2),
        ("b2", "wrist", None, [], None, 0),
        ("c3", None, None, [], None, 0),
        ("d4", None, None, [], False, 0),
    ]
    assert devices[0].position.battery_pct == 80
    assert devices[1].position is None
    assert devices[3].position is None
    position = devices[2].position
    assert (position.fix_time_us, position.lat_e7, position.lon_e7) == (NOW_US - 5, 350_000_000, -800_000_000)
    assert (position.accuracy_mm, position.speed_cmps, position.battery_pct) == (
        NO_ACCURACY,
        UNKNOWN_U16,
        UNKNOWN_U8,
    )


def test_positions_since(store, make, database_url):
    store.commit(
        make.batch(make.pings("a17", "b2", received_time_us=[NOW_US, NOW_US + 5], lat_e7=[1, NO_FIX]))
    )

    async def question(reader):
        return await reader.positions(), await reader.positions(NOW_US), await reader.positions(NOW_US + 5)

    everyone, newer, none = ask(database_url, question)
    assert sorted(p.device_id for p in everyone) == ["a17", "b2"]
    assert [(p.device_id, p.lat_e7) for p in newer] == [("b2", NO_FIX)]
    assert none == []


def test_what_devices_did_with_commands(store, make, database_url):
    first = CommandResult("a17", "c-1", True, "", NOW_US - 9, NOW_US)
    second = CommandResult("a17", "c-2", False, "battery low", NOW_US, NOW_US + 1)
    store.commit(make.batch(results=[first, second, replace(first, device_id="b2")]))
    found = ask(database_url, lambda reader: reader.command_results("a17"))
    assert found == [second, first]
    assert ask(database_url, lambda reader: reader.command_results("a17", limit=1)) == [second]


def test_a_track_streams_every_ping_in_order(store, make, database_url, monkeypatch):
    monkeypatch.setattr("telemetry.store.reader.CHUNK_ROWS", 64)
    n = 300
    rng = np.random.default_rng(1)
    pings = make.pings(
        *["a17"] * n,
        fix_time_us=NOW_US - rng.integers(0, 3 * DAY_US, n),
        seq=np.where(np.arange(n) % 7, np.arange(n), NO_SEQ),
    )
    store.commit(make.batch(pings, marks=5))
    store.commit(make.batch(make.pings("b2")))

    async def question(reader):
        chunks = [chunk async for chunk in reader.track("a17", NOW_US - 2 * DAY_US, NOW_US)]
        return chunks, [chunk async for chunk in reader.track("nobody", 0, 2**62)]

    chunks, nobody = ask(database_url, question)
    rows = [row for chunk in chunks for row in chunk]
    inside = (pings.fix_time_us >= NOW_US - 2 * DAY_US) & (pings.fix_time_us < NOW_US)
    assert len(chunks) > 2
    assert nobody == []
    assert sorted((r.fix_time_us, r.seq) for r in rows) == sorted(
        zip(pings.fix_time_us[inside], pings.seq[inside], strict=True)
    )
    assert [r.fix_time_us for r in rows] == sorted(r.fix_time_us for r in rows)
    assert {r.marks for r in rows} == {5}


def test_lists_are_walked_without_gap_or_repeat(store, make, database_url):
    rng = np.random.default_rng(2)
    slots = make.devices.slots([f"d{i}" for i in range(5)])
    n = 60
    transitions = [
        {
            "device": int(slots[i % 5]),
            "zone": i % 3,
            "kind": 1 + i % 2,
            "time_us": NOW_US - int(t) * DAY_US // 4,
        }
        for i, t in enumerate(rng.integers(0, 8, n))
    ]
    violations = [
        {
            "violation_id": i + 1,
            "device": int(slots[i % 5]),
            "rule": i % 3,
            "zone": i % 3,
            "severity": i % 4,
            "opened_us": NOW_US - int(t) * DAY_US // 4,
        }
        for i, t in enumerate(rng.integers(0, 8, n))
    ]
    alerts = [
        AlertChange(i + 1, "opened", i + 1, f"d{i % 5}", f"rule-{i % 3}", None, "high", v["opened_us"], "x")
        for i, v in enumerate(violations)
    ]
    store.commit(make.batch(decided=[make.decided(transitions, violations)], alerts=alerts))
    closed = [v | {"revision": 1, "change": CLOSED, "closed_us": NOW_US} for v in violations[::2]]
    gone = [v | {"revision": 2, "change": WITHDRAWN, "closed_us": NOW_US} for v in violations[::4]]
    moved = [
        v | {"revision": 1, "change": AMENDED, "opened_us": v["opened_us"] - DAY_US} for v in violations[1::6]
    ]
    store.commit(make.batch(decided=[make.decided(violations=closed + gone + moved)]))

    async def question(reader):
        found = {}
        for limit in (1, 7, 60, 1000):
            found[limit] = (
                [t.transition_id for t in await walk(reader.transitions, limit)],
                [v.violation_id for v in await walk(reader.violations, limit)],
                [a.alert_id for a in await walk(reader.alerts, limit)],
            )
        window = {"from_us": NOW_US - DAY_US, "to_us": NOW_US}
        filtered = {
            "transitions": await walk(reader.transitions, 4, device_id="d1", zone_id="zone-1", kind="EXIT"),
            "transition window": await walk(reader.transitions, 4, **window),
            "violations": await walk(reader.violations, 4, device_id="d1", rule_id="rule-1"),
            "severity": await walk(reader.violations, 4, severity="critical", zone_id="zone-0"),
            "violation window": await walk(reader.violations, 4, **window),
            "alerts": await walk(
                reader.alerts,
                4,
                device_id="d1",
                rule_id="rule-1",
                severity="high",
                states=["open", "resolved"],
            ),
            "no alerts": await walk(reader.alerts, 4, states=["resolved"]),
        }
        states = {
            s: await walk(reader.violations, 9, state=s) for s in ("open", "closed", "withdrawn", "held_back")
        }
        return found, filtered, states

    found, filtered, states = ask(database_url, question)
    assert all(found[limit] == found[1000] for limit in found)
    assert [len(ids) for ids in found[1000]] == [n, n, n]
    assert all(len(set(ids)) == n for ids in found[1000])

    opened = {v["violation_id"]: v["opened_us"] for v in violations} | {
        v["violation_id"]: v["opened_us"] for v in moved
    }
    assert found[7][1] == sorted(opened, key=lambda i: (-opened[i], -i))
    assert {v.violation_id for v in states["withdrawn"]} == {v["violation_id"] for v in gone}
    assert {v.violation_id for v in states["closed"]} == {v["violation_id"] for v in closed} - {
        v["violation_id"] for v in gone
    }
    assert len(states["open"]) == n - len(closed)
    assert states["held_back"] == []
    expected = [t for i, t in enumerate(transitions) if i % 5 == 1 and i % 3 == 1 and t["kind"] == 2]
    assert [t.time_us for t in filtered["transitions"]] == sorted(
        (t["time_us"] for t in expected), reverse=True
    )
    assert len(filtered["transition window"]) == sum(
        NOW_US - DAY_US <= t["time_us"] < NOW_US for t in transitions
    )
    assert len(filtered["violation window"]) == sum(NOW_US - DAY_US <= t < NOW_US for t in opened.values())
    assert {v.violation_id for v in filtered["violations"]} == {
        i + 1 for i in range(n) if i % 5 == 1 and i % 3 == 1
    }
    assert {v.violation_id for v in filtered["severity"]} == {
        i + 1 for i in range(n) if i % 4 == 3 and i % 3 == 0
    }
    assert {a.alert_id for a in filtered["alerts"]} == {i + 1 for i in range(n) if i % 5 == 1 and i % 3 == 1}
    assert filtered["no alerts"] == []


def test_an_alert_carries_its_violation_and_its_log(store, make, database_url):
    row = {
        "violation_id": 9,
        "device": make.devices.slot("a17"),
        "rule": 1,
        "zone": 2,
        "severity": 2,
        "depth_mm": 5,
    }
    change = AlertChange(9, "opened", 9, "a17", "rule-1", "zone-2", "high", NOW_US, "in the zone")
    message = Outgoing(9, "a17", "ringfence/v1/alerts/high/a17/9", b"{}", True)
    store.commit(make.batch(decided=[make.decided(violations=[row])], alerts=[change], outgoing=[message]))
    store.commit(
        make.batch(alerts=[replace(change, alert_id=10, violation_id=10)])
    )  # whose violation is not here

    async def question(reader):
        before = await reader.newest_outbox_id()
        acknowledged = await reader.act_on_alert(9, "acknowledge", who="m.ito", note="calling")
        with pytest.raises(AlertConflict, match="alert 9 is acknowledged"):
            await reader.act_on_alert(9, "acknowledge", who="other")
        resolved = await reader.act_on_alert(9, "resolve", who="m.ito", note="hospital", outcome="excused")
        reopened = await reader.act_on_alert(9, "reopen", who="b.lee")
        with pytest.raises(NoSuchAlert):
            await reader.act_on_alert(404, "reopen", who="b.lee")
        with pytest.raises(StoreError, match="resolve needs one of real, false"):
            await reader.act_on_alert(9, "resolve", who="b.lee", outcome="maybe")
        with pytest.raises(StoreError, match="no action is called 'shout'"):
            await reader.act_on_alert(9, "shout", who="b.lee")
        events = await reader.outbox_since(before, 100)
        return acknowledged, resolved, reopened, await reader.alert_log(9), events, await reader.alert(10)

    acknowledged, resolved, reopened, log, events, other = ask(database_url, question)
    assert (acknowledged.state, resolved.state, resolved.outcome) == ("acknowledged", "resolved", "excused")
    assert (reopened.state, reopened.outcome) == ("open", None)
    assert (acknowledged.violation.violation_id, acknowledged.violation.zone_id) == (9, "zone-2")
    assert (acknowledged.violation.closed_us, acknowledged.violation.depth_error_mm) == (None, -1)
    assert other.violation is None
    assert [(step.change, step.who, step.note) for step in log] == [
        ("opened", None, None),
        ("acknowledged", "m.ito", "calling"),
        ("resolved", "m.ito", "hospital"),
        ("reopened", "b.lee", None),
    ]
    documents = [json.loads(event.payload) for event in events]
    assert [d["type"] for d in documents] == [
        f"org.ringfence.alert.{c}" for c in ("acknowledged", "resolved", "reopened")
    ]
    assert len({d["id"] for d in documents}) == 3
    assert documents[1]["data"] | {"opened_at": None} == {
        "alert_id": "9",
        "violation_id": "9",
        "device_id": "a17",
        "rule_id": "rule-1",
        "zone_id": "zone-2",
        "severity": "high",
        "rules_version": 1,
        "state": "resolved",
        "outcome": "excused",
        "assigned_to": "m.ito",
        "opened_at": None,
        "who": "m.ito",
        "note": "hospital",
        "sentence": "in the zone",
    }
    assert {row.topic for row in store.pending(10)} == {message.topic}


def test_an_action_after_days_of_quiet_finds_its_day(store, make, database_url, query):
    store.commit(make.batch(alerts=[AlertChange(1, "opened", 1, "a17", "rule-1", None, "high", NOW_US, "x")]))
    if store.extension is None:
        for (part,) in query(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'outbox'::regclass"
        ):
            query(f"DROP TABLE {part}")
    row = ask(database_url, lambda reader: reader.act_on_alert(1, "acknowledge", who="m.ito"))
    assert row.state == "acknowledged"
    assert query("SELECT count(*) FROM outbox") == [(1,)]


def test_listeners_are_woken_by_a_commit(store, make, database_url):
    async def question(reader):
        wakes = reader.outbox_wakes()
        assert await anext(wakes) == 0
        commit = asyncio.to_thread(store.commit, make.batch(outgoing=[Outgoing(1, "a17", "t", b"{}", True)]))
        woken, _ = await asyncio.gather(asyncio.wait_for(anext(wakes), 10), commit)
        rows = await reader.outbox_since(0, 10)
        await wakes.aclose()
        return woken, rows

    woken, rows = ask(database_url, question)
    assert [row.id for row in rows] == [woken]
    assert (rows[0].payload, rows[0].created_us) == (b"{}", NOW_US)


def test_rules_in_force(store, database_url):
    assert ask(database_url, lambda reader: reader.ruleset()) is None
    store.save_ruleset(DOCUMENT, "digest", NOW_US)
    assert ask(database_url, lambda reader: reader.ruleset()) == (1, DOCUMENT, NOW_US)


def test_who_was_near_a_place(store, make, database_url):
    """Against a plain haversine over all pings; the index by place is used for the days that are over."""
    rng = np.random.default_rng(3)
    n = 4_000
    lat_e7 = 350_000_000 + rng.integers(-300_000, 300_000, n)
    lon_e7 = -800_000_000 + rng.integers(-300_000, 300_000, n)
    lat_e7[:50] = NO_FIX
    lon_e7[:50] = NO_FIX
    time_us = NOW_US - rng.integers(0, 3 * DAY_US, n)
    store.commit(
        make.batch(
            make.pings(*[f"d{i % 50}" for i in range(n)], fix_time_us=time_us, lat_e7=lat_e7, lon_e7=lon_e7)
        )
    )
    store.keep_house()
    here, radius_m, begin_us, end_us = (
        (350_010_000, -800_020_000),
        900.0,
        NOW_US - 2 * DAY_US,
        NOW_US - DAY_US // 2,
    )

    rows = ask(database_url, lambda reader: reader.near(*here, radius_m, begin_us, end_us))

    lat, lon = np.radians(lat_e7 / 1e7), np.radians(lon_e7 / 1e7)
    lat0, lon0 = np.radians(here[0] / 1e7), np.radians(here[1] / 1e7)
    h = np.sin((lat - lat0) / 2) ** 2 + np.cos(lat) * np.cos(lat0) * np.sin((lon - lon0) / 2) ** 2
    metres = 2 * 6_371_008.8 * np.arcsin(np.sqrt(h))
    inside = (metres <= radius_m) & (lat_e7 != NO_FIX) & (time_us >= begin_us) & (time_us < end_us)
    assert inside.sum() > 50
    assert sorted((r.fix_time_us, r.lat_e7, r.lon_e7) for r in rows) == sorted(
        zip(time_us[inside], lat_e7[inside], lon_e7[inside], strict=True)
    )
    assert max(r.distance_mm for r in rows) <= radius_m * 1000


def test_a_circle_too_large_for_the_place_key_is_refused(store, database_url):
    with pytest.raises(ValueError, match="ask for a smaller one"):
        ask(database_url, lambda reader: reader.near(0, 0, 500_000.0, 0, 1))


def test_a_database_that_is_away_is_told_quickly(database_url):
    async def question(reader):
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await reader.check()
        return time.monotonic() - began_s

    assert ask("postgresql://x@127.0.0.1:1/nowhere", question) < 4.0


def test_connections_that_died_are_replaced(store, database_url, query):
    async def question(reader):
        await reader.check()
        await asyncio.to_thread(
            query,
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'ringfence reader'",
        )
        await reader.check()

    ask(database_url, question)


@given(
    st.lists(
        st.integers(-(2**63), 2**63 - 1)
        | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
        max_size=3,
    )
)
def test_cursors_come_back(key):
    assert list(read_cursor(write_cursor("list", *key), "list", *map(type, key))) == key


@given(
    st.text(max_size=40)
    | st.builds(lambda key: write_cursor("other", *key), st.lists(st.integers(0, 9), max_size=3))
)
def test_no_other_text_passes_for_a_cursor(text):
    with pytest.raises(BadCursor):
        read_cursor(text, "list", int, int)


def test_lists_ask_their_indexes(store, make, query, database_url):
    """EXPLAIN: a page of a long list reads no whole table."""
    from telemetry.store import queries

    slots = make.devices.slots([f"d{i}" for i in range(100)])
    rows = [
        {
            "violation_id": i + 1,
            "device": int(slots[i % 100]),
            "rule": i % 3,
            "opened_us": NOW_US - i * 1_000_000,
            "change": CLOSED,
            "closed_us": NOW_US,
        }
        for i in range(6_000)
    ]
    alerts = [
        AlertChange(i, "opened", i, f"d{i % 100}", "rule-1", None, "high", NOW_US - i * 1_000_000, "x")
        for i in range(1, 3_000)
    ]
    store.commit(make.batch(decided=[make.decided(violations=rows)], alerts=alerts))
    query("ANALYZE")
    with psycopg.connect(database_url) as connection:
        for text, where in (
            (queries.VIOLATIONS, "h.state = ANY('{open}')"),
            (queries.VIOLATIONS, "h.state = 'closed' AND (h.opened_time, h.violation_id) < (now(), 5)"),
            (queries.VIOLATIONS, "h.device_id = 'd7'"),
            (queries.ALERTS, "a.device_id = 'd7'"),
            (queries.ALERTS, "a.alert_id = 7"),
        ):
            plan = "\n".join(
                r[0] for r in connection.execute("EXPLAIN " + text.format(where=where), {"limit": 51})
            )
            scans = [line for line in plan.splitlines() if "Seq Scan" in line]
            assert all("cost=0.00..0.00" in line for line in scans), plan  # of a partition without rows
