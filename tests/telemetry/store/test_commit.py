"""One transaction for each batch: all of it, once, whatever happens to the connection."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import psycopg
import pytest

from geofence import AMENDED, CLOSED, ENTER, HELD_BACK, NO_FIX, OPENED, WITHDRAWN
from geofence.records import FLAG_LATE, FLAG_WITHDRAWN
from telemetry.columns import AlertChange, CheckIn, DeviceStatus, Outgoing, Reject, Tick
from telemetry.store import StaleEpoch, Store, StoreError, StoreUnavailable
from telemetry.store.rows import KEPT_PAYLOAD_BYTES
from tests.telemetry.store.batches import DAY_US, NOW_US

NOW = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=NOW_US)
TABLES = (
    "pings",
    "transitions",
    "violations",
    "violation_heads",
    "alerts",
    "alert_log",
    "check_ins",
    "quarantine",
    "outbox",
    "batches",
    "device_status",
)


def _alert(change: str = "opened", sentence: str = "in the zone", **more: object) -> AlertChange:
    return replace(AlertChange(7, change, 7, "a17", "rule-1", "zone-2", "high", NOW_US, sentence), **more)


def _full(make):
    """A batch with something for every table."""
    return make.batch(
        make.pings("a17", "b2", fix_time_us=[NOW_US, NOW_US - 29 * DAY_US], lat_e7=[350_000_000, NO_FIX]),
        decided=[
            make.decided(
                [
                    {
                        "device": 0,
                        "zone": 2,
                        "kind": ENTER,
                        "flags": 1,
                        "distance_mm": -5_000,
                        "confidence_ppm": 990_000,
                    }
                ],
                [
                    {
                        "violation_id": 7,
                        "device": 0,
                        "rule": 1,
                        "zone": 2,
                        "severity": 2,
                        "fixes": 3,
                        "depth_mm": 62_000,
                    }
                ],
            )
        ],
        alerts=[_alert()],
        outgoing=[Outgoing(7, "a17", "ringfence/v1/alerts/high/a17/7", b'{"id": 1}', True)],
        check_ins=[CheckIn("a17", NOW_US - 1, NOW_US, "verified", "voice")],
        statuses=[DeviceStatus("a17", True, NOW_US)],
        rejects=[Reject("ringfence/v1/00/x/pings", "not_json", "ends early", b"{", NOW_US)],
        tick=Tick(NOW_US, NOW_US - 1),
    )


def _counts(query) -> dict[str, int]:
    return {table: query(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}


ONCE = dict.fromkeys(TABLES, 1) | {"pings": 2, "device_status": 2}


def test_every_table_has_its_rows(store, make, query):
    store.commit(_full(make))
    assert _counts(query) == ONCE
    assert query(
        "SELECT device_id, fix_time, lat, lon, speed_mps, marks, judged, share, batch FROM ping_details"
        " ORDER BY device_id"
    ) == [
        ("a17", NOW, 35.0, -80.0, None, [], True, 0, 1),
        ("b2", NOW - timedelta(days=29), None, -80.0, None, [], True, 0, 1),
    ]
    assert query(
        "SELECT device_id, zone_id, kind, initial, late, time, distance_mm, confidence_ppm, rules_version,"
        " batch"
        " FROM transitions"
    ) == [("a17", "zone-2", "ENTER", True, False, NOW, -5_000, 990_000, 1, 1)]
    assert query(
        "SELECT violation_id, revision, state, change, severity, device_id, rule_id, zone_id, opened_time,"
        " closed_time, depth_mm, depth_error_mm, fixes, supersedes FROM current_violations"
    ) == [(7, 0, "open", "opened", "high", "a17", "rule-1", "zone-2", NOW, None, 62_000, None, 3, None)]
    assert query("SELECT alert_id, state, opened_time, topic, rules_version FROM alerts") == [
        (7, "open", NOW, "ringfence/v1/alerts/high/a17/7", 1)
    ]
    assert query("SELECT change, who, sentence FROM alert_log") == [("opened", None, "in the zone")]
    assert query("SELECT device_id, time, received_time, outcome, method, batch FROM check_ins") == [
        ("a17", NOW - timedelta(microseconds=1), NOW, "verified", "voice", 1)
    ]
    assert query("SELECT topic, reason, payload, payload_bytes, payload_sha256 FROM quarantine") == [
        ("ringfence/v1/00/x/pings", "not_json", b"{", 1, None)
    ]
    assert query("SELECT tick_time, pings, check_ins, rejects, committed_time FROM batches") == [
        (NOW, 2, 1, 1, NOW)
    ]


def test_an_alert_names_the_rules_that_its_step_was_decided_by(store, make, query):
    store.commit(make.batch(alerts=[_alert(), replace(_alert(rules_version=9), alert_id=8)]))
    assert query("SELECT alert_id, rules_version FROM alerts ORDER BY alert_id") == [(7, 1), (8, 9)]


def test_the_same_batch_again_changes_nothing(store, make, query):
    batch = _full(make)
    store.commit(batch)
    store.commit(batch)
    assert _counts(query) == ONCE


def test_a_gap_in_the_numbers_is_refused(store, make, query):
    store.commit(make.batch())
    make.number += 1
    with pytest.raises(StoreError, match="batch 3 can't follow batch 1"):
        store.commit(make.batch(make.pings("a17")))
    assert query("SELECT count(*) FROM pings") == [(0,)]


def test_an_old_epoch_writes_nothing(store, make, query):
    with pytest.raises(StaleEpoch, match="is at epoch 1, this engine holds epoch 0") as caught:
        store.commit(make.batch(make.pings("a17"), epoch=0))
    assert (caught.value.held, caught.value.current) == (0, 1)
    assert query("SELECT count(*) FROM pings") == [(0,)]


def test_a_refused_batch_leaves_the_store_usable(store, make, query):
    bad = make.batch(
        alerts=[_alert(severity="high", sentence="a\0b")]
    )  # NUL: text that PostgreSQL does not take
    with pytest.raises(StoreError) as caught:
        store.commit(bad)
    assert not isinstance(caught.value, StoreUnavailable)
    store.commit(replace(bad, alerts=[]))
    assert query("SELECT last_batch FROM shares") == [(1,)]


def test_the_connection_is_cut_after_every_message(database_url, wire, make, query):
    """Whatever had reached the server when the wire broke: sent again, the batch is there once."""
    store = Store.open(wire.url, now_us=lambda: NOW_US)
    store.migrate()
    make.lease = store.take_share(0)
    store.commit(_full(make))  # makes the days, so that every batch after it sends the same messages
    for _ in range(6):
        store.commit(_full(make))  # until psycopg has prepared what it prepares
    wire.watch()
    store.commit(_full(make))
    steps = len(wire.messages)
    assert steps > 20
    unavailable = 0
    # a connection to TimescaleDB takes longer, and the client is the same
    every = 1 if store.extension is None else 7
    cuts = [{kind: k} for k in range(1, steps + 1) for kind in ("cut_after", "cut_reply_to")][::every]
    for cut in cuts:
        batch = _full(make)
        wire.watch(**cut)
        for _ in range(4):
            try:
                store.commit(batch)
                break
            except StoreUnavailable:
                unavailable += 1
                wire.watch()
        else:
            pytest.fail(f"{cut}: still unavailable after four attempts")
        assert _counts(query) == {
            table: make.number * n if table not in {"alerts", "violation_heads", "device_status"} else n
            for table, n in ONCE.items()
        }, cut
    assert unavailable >= len(cuts) // 2
    store.close()


def test_a_commit_whose_answer_was_lost_is_not_done_twice(database_url, wire, make, query):
    store = Store.open(wire.url, now_us=lambda: NOW_US)
    store.migrate()
    make.lease = store.take_share(0)
    store.commit(_full(make))
    store.commit(_full(make))
    batch = _full(make)
    wire.watch(cut_reply_to=b"Q\0\0\0\x0bCOMMIT\0")
    with pytest.raises(StoreUnavailable):
        store.commit(batch)
    wire.watch()
    assert query("SELECT last_batch FROM shares") == [(3,)]  # it had happened
    store.commit(batch)
    assert _counts(query)["pings"] == 6
    store.close()


@pytest.mark.parametrize("waiting_for", ["shares", "pings", "outbox"])
def test_the_backend_is_ended_while_it_commits(store, make, query, database_url, eventually, waiting_for):
    """pg_terminate_backend from a second connection, at the begin, in the middle and near the end."""
    import threading

    store.commit(_full(make))
    batch = _full(make)
    outcome: list[BaseException | None] = []

    def commit() -> None:
        try:
            store.commit(batch)
            outcome.append(None)
        except StoreError as error:
            outcome.append(error)

    with psycopg.connect(database_url) as blocker:
        blocker.execute(f"LOCK TABLE {waiting_for} IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=commit)
        thread.start()
        waiting = (
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            " AND application_name = 'ringfence share 0'"
        )
        ((pid,),) = eventually(lambda: query(waiting))
        query("SELECT pg_terminate_backend(%s, 5000)", pid)
        thread.join(10)
    assert isinstance(outcome[0], StoreUnavailable)
    assert _counts(query) == ONCE
    store.commit(batch)
    assert _counts(query)["pings"] == 4


def test_a_day_that_somebody_dropped_is_made_again(store, make, query):
    store.commit(make.batch(make.pings("a17")))
    if store.extension is None:
        query("DROP TABLE pings_2026_09_21")
    else:
        query("SELECT drop_chunks('pings', TIMESTAMPTZ '2100-01-01')")
    store.commit(make.batch(make.pings("a17")))
    assert query("SELECT batch FROM pings") == [(2,)]


def test_a_refuted_transition_is_taken_back_by_a_row_of_its_own(store, make, query):
    row = {"device": make.devices.slot("a17"), "zone": 2, "kind": ENTER}

    def commit(**more: int) -> None:
        store.commit(make.batch(decided=[make.decided([row | more])]))

    def current():
        return query("SELECT kind, time, late FROM current_transitions")

    commit()
    assert current() == [("ENTER", NOW, False)]
    commit(flags=FLAG_LATE | FLAG_WITHDRAWN)
    assert current() == []
    commit(flags=FLAG_LATE)
    assert current() == [("ENTER", NOW, True)]
    assert query("SELECT withdrawn FROM transitions ORDER BY transition_id") == [(False,), (True,), (False,)]


def test_violations_are_added_to_never_changed(store, make, query):
    row = {"violation_id": 9, "device": make.devices.slot("a17")}

    def commit(**more: int) -> None:
        store.commit(make.batch(decided=[make.decided(violations=[row | more])]))

    def current():
        return query("SELECT revision, state, opened_time FROM current_violations WHERE violation_id = 9")

    commit()
    commit(revision=1, change=CLOSED, closed_us=NOW_US + 5)
    assert current() == [(1, "closed", NOW)]
    earlier = NOW_US - 2 * DAY_US
    commit(revision=2, change=AMENDED, opened_us=earlier, closed_us=NOW_US + 5, flags=2)
    assert current() == [(2, "closed", NOW - timedelta(days=2))]
    commit(revision=3, change=WITHDRAWN, opened_us=earlier, closed_us=NOW_US + 5)
    assert current() == [(3, "withdrawn", NOW - timedelta(days=2))]
    assert query("SELECT revision, change, late FROM violations ORDER BY revision") == [
        (0, "opened", False),
        (1, "closed", False),
        (2, "amended", True),
        (3, "withdrawn", False),
    ]
    for table in ("violations", "transitions", "alert_log"):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            query(f"DELETE FROM {table}")


def test_several_revisions_in_one_batch_leave_the_last_as_current(store, make, query):
    row = {"violation_id": 9, "device": make.devices.slot("a17")}
    held = row | {"violation_id": 10, "change": HELD_BACK, "closed_us": NOW_US}
    store.commit(
        make.batch(
            decided=[
                make.decided(violations=[row | {"change": OPENED}]),
                make.decided(violations=[row | {"revision": 1, "change": CLOSED, "closed_us": NOW_US}, held]),
            ]
        )
    )
    assert query("SELECT violation_id, revision, state FROM current_violations ORDER BY 1") == [
        (9, 1, "closed"),
        (10, 0, "held_back"),
    ]


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        (["opened"], "open"),
        (["opened", "updated"], "open"),
        (["opened", "withdrawn"], "withdrawn"),
        (["opened", "withdrawn", "opened"], "open"),
        (["updated"], "open"),
        (["withdrawn"], "withdrawn"),
    ],
)
def test_alerts_follow_their_steps(store, make, query, steps, state):
    for step in steps:
        store.commit(make.batch(alerts=[_alert(step, sentence=f"{step}.")]))
    assert query("SELECT state, sentence, withdrawn_time IS NOT NULL FROM alerts") == [
        (state, f"{steps[-1]}.", state == "withdrawn")
    ]
    assert query("SELECT change FROM alert_log ORDER BY log_id") == [(step,) for step in steps]


def test_what_an_operator_resolved_stays_resolved(store, make, query):
    store.commit(make.batch(alerts=[_alert()]))
    store.record_alert_action(7, "resolve", "m.ito", "hospital", "excused")
    store.commit(make.batch(alerts=[_alert("withdrawn")]))
    assert query("SELECT state, outcome FROM alerts") == [("resolved", "excused")]


def test_of_a_large_reject_the_beginning_and_a_hash_are_kept(store, make, query):
    import hashlib

    payload = bytes(range(256)) * 4096  # 1 MiB
    store.commit(make.batch(rejects=[Reject("a\0b\ud800", "too_large", "x\0", payload, NOW_US)]))
    assert query("SELECT topic, detail, payload, payload_bytes, payload_sha256 FROM quarantine") == [
        (
            "a\N{SYMBOL FOR NULL}b\\ud800",
            "x\N{SYMBOL FOR NULL}",
            payload[:KEPT_PAYLOAD_BYTES],
            1 << 20,
            hashlib.sha256(payload).digest(),
        )
    ]


def test_ids_cross_two_to_the_31(store, make, query):
    for sequence in ("transition_ids", "outbox_ids", "quarantine_ids", "alert_log_ids"):
        query("SELECT setval(%s, %s)", sequence, 2**31 - 2)
    query("UPDATE shares SET last_batch = %s", 2**31 - 2)
    make.number = 2**31 - 2
    for _ in range(3):
        store.commit(_full(make))
    assert query("SELECT max(batch) FROM pings") == [(2**31 + 1,)]
    assert query("SELECT max(transition_id) FROM transitions") == [(2**31 + 1,)]
    assert query("SELECT max(log_id) FROM alert_log") == [(2**31 + 1,)]
    assert query("SELECT max(quarantine_id) FROM quarantine") == [(2**31 + 1,)]
    assert [row.id for row in store.pending(10)] == [2**31 - 1, 2**31, 2**31 + 1]
    assert [past.number for past in store.replay(0, 2**31 - 1)] == [2**31, 2**31 + 1]


def test_device_status_follows_the_newest_ping_and_the_newest_fix(store, make, query):
    def status():
        return query(
            "SELECT fix_time, position_time, lat_e7, battery_pct, online FROM device_status"
            " WHERE device_id = 'a17'"
        )

    store.commit(make.batch(make.pings("a17", "a17", fix_time_us=[NOW_US, NOW_US - 1], battery_pct=80)))
    assert status() == [(NOW, NOW, 350_000_000, 80, None)]
    later = NOW + timedelta(microseconds=9)
    store.commit(
        make.batch(make.pings("a17", fix_time_us=NOW_US + 9, lat_e7=NO_FIX, lon_e7=NO_FIX, battery_pct=70))
    )
    assert status() == [(later, NOW, 350_000_000, 70, None)]
    between = NOW + timedelta(microseconds=5)
    store.commit(make.batch(make.pings("a17", fix_time_us=NOW_US + 5, lat_e7=1, battery_pct=75)))
    assert status() == [(later, between, 1, 70, None)]
    store.commit(make.batch(make.pings("a17", fix_time_us=NOW_US + 99, lat_e7=2), marks=1 << 3))  # wrong tag
    assert status() == [(later, between, 1, 70, None)]
    store.commit(
        make.batch(statuses=[DeviceStatus("a17", True, NOW_US + 1), DeviceStatus("a17", False, NOW_US + 2)])
    )
    store.commit(make.batch(statuses=[DeviceStatus("a17", True, NOW_US + 1)]))  # an older word
    assert status() == [(later, between, 1, 70, False)]


def test_device_status_beyond_the_budget_waits_for_the_snapshot(store, make, query):
    many = [f"d{i}" for i in range(30_000)]
    for seconds in range(3):
        store.commit(make.batch(make.pings(*many, fix_time_us=NOW_US + seconds * 1_000_000)))
    newest = "SELECT count(*) FROM device_status WHERE fix_time = %s"
    assert query(newest, NOW + timedelta(seconds=2)) == [(0,)]
    store.save_snapshot(0, make.lease.epoch, make.number, b"state")
    assert query(newest, NOW + timedelta(seconds=2)) == [(30_000,)]


def test_pings_are_stored_as_they_are(store, make):
    """Bit-equal, whatever the session's settings: checked through the replay."""
    rng = np.random.default_rng(4)
    n = 5_000
    pings = make.pings(
        *[f"d{i}" for i in rng.integers(0, 50, n)],
        fix_time_us=NOW_US - rng.integers(0, 30 * DAY_US, n),
        received_time_us=NOW_US + rng.integers(0, 10**6, n),
        boot=rng.integers(-1, 65536, n),
        seq=np.arange(n),
        lat_e7=rng.integers(-900_000_000, 900_000_001, n),
        lon_e7=rng.integers(-1_800_000_000, 1_800_000_001, n),
        accuracy_mm=rng.integers(-1, 2**31 - 1, n),
        speed_cmps=rng.integers(0, 65536, n),
        altitude_m=rng.integers(-32768, 32768, n),
        status=rng.integers(0, 65536, n),
        battery_pct=rng.integers(0, 256, n),
    )
    marks, judged = rng.integers(0, 64, n).astype(np.uint16), rng.random(n) < 0.5
    store.commit(make.batch(pings, marks=marks, judged=judged))
    (past,) = store.replay(0, 0, make.devices)
    there, here = np.argsort(past.pings.seq), np.argsort(pings.seq)
    for name in (
        "device",
        "fix_time_us",
        "received_time_us",
        "boot",
        "seq",
        "lat_e7",
        "lon_e7",
        "accuracy_mm",
    ):
        assert np.array_equal(getattr(past.pings, name)[there], getattr(pings, name)[here]), name
    for name in ("speed_cmps", "heading_cdeg", "altitude_m", "status", "battery_pct", "satellites"):
        assert np.array_equal(getattr(past.pings, name)[there], getattr(pings, name)[here]), name
    assert np.array_equal(past.marks[there], marks[here])
    assert np.array_equal(past.judged[there], judged[here])
