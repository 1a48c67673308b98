"""The quarantine: found by what is asked, replayed once, and bounded whatever is sent."""

from __future__ import annotations

import random

import pytest

from telemetry.columns import CommandResult, Reject
from telemetry.store import Retention, Store, StoreError, Wanted
from telemetry.store.rows import BRIEF_PAYLOAD_BYTES
from tests.telemetry.store.batches import DAY_US, NOW_US

REJECTS = [
    Reject("ringfence/v1/00/a_1/pings", "not_json", "ends early", b"{", NOW_US),
    Reject("ringfence/v1/00/a-1/pings", "misdated", "from 1970", b"{}", NOW_US + 1),
    Reject("owntracks/a/x", "out_of_range", "lat is 95", b"[]", NOW_US + 2),
]


def _topics(store: Store, **wanted: object) -> list[str]:
    return [row.topic for row in store.quarantine.find(Wanted(**wanted), 10)]


def test_messages_are_found_by_what_is_asked_newest_first(store, make):
    store.commit(make.batch(rejects=REJECTS))
    assert _topics(store) == [r.topic for r in reversed(REJECTS)]
    assert _topics(store, device="a_1") == [REJECTS[0].topic]  # _ is a letter here, no wildcard
    assert _topics(store, device="a-x") == [REJECTS[2].topic]
    assert _topics(store, reason="misdated") == [REJECTS[1].topic]
    assert _topics(store, topic="/00/") == [REJECTS[1].topic, REJECTS[0].topic]
    assert _topics(store, from_us=NOW_US + 1, to_us=NOW_US + 2) == [REJECTS[1].topic]
    assert _topics(store, ids=[-1, 2**70]) == []
    (row,) = store.quarantine.find(Wanted(reason="not_json"), 10)
    assert (row.payload, row.payload_bytes, row.received_us, row.batch) == (b"{", 1, NOW_US, 1)
    assert (row.detail, row.payload_sha256, row.asked_us, row.refused_again) == (
        "ends early",
        None,
        None,
        None,
    )


def test_a_replay_is_asked_for_once_until_it_is_taken(store, make):
    store.commit(make.batch(rejects=REJECTS))
    rows = store.quarantine.find(Wanted(), 10)
    store.quarantine.ask(rows[1:], "alice")
    store.quarantine.ask(rows, "bob")
    asked = store.quarantine.asked(0)
    assert sorted((a.topic, a.payload) for a in asked) == sorted((r.topic, r.payload) for r in REJECTS)
    assert store.quarantine.asked(1) == []
    assert {row.asked_by for row in store.quarantine.find(Wanted(replayed=True), 10)} == {"alice", "bob"}
    store.quarantine.taken([a.replay_id for a in asked], NOW_US + 5, 1)
    assert store.quarantine.asked(0) == []
    assert {row.taken_us for row in store.quarantine.find(Wanted(), 10)} == {NOW_US + 5}
    assert not any(row.refused_again for row in store.quarantine.find(Wanted(), 10))
    # what comes back at the same received time was refused again
    store.commit(make.batch(rejects=[Reject(REJECTS[0].topic, "not_json", "ends early", b"{", NOW_US + 5)]))
    again = {row.quarantine_id: row.refused_again for row in store.quarantine.find(Wanted(replayed=True), 10)}
    assert sorted(again.values()) == [False, False, True]


def test_of_which_only_the_beginning_was_kept_can_not_be_replayed(store, make):
    store.commit(make.batch(rejects=[Reject("t", "too_large", "…", b"x" * 100_000, NOW_US)]))
    with pytest.raises(StoreError, match=r"had 100000 bytes.*let the device send it again"):
        store.quarantine.ask(store.quarantine.find(Wanted(), 10), "alice")
    assert store.quarantine.asked(0) == []


def test_a_full_quarantine_keeps_one_of_each_reason_and_the_count(database_url, make, query):
    bound = 3 << 20
    store = Store.open(database_url, retention=Retention(quarantine_bytes=bound), now_us=lambda: NOW_US)
    store.migrate()
    make.lease = store.take_share(0)
    flood = [
        Reject("t", f"reason-{i % 2}", "bad", random.Random(i).randbytes(60_000), NOW_US) for i in range(20)
    ]
    for _ in range(6):
        store.commit(make.batch(rejects=flood))
    assert query("SELECT sum(rejects) FROM batches") == [(120,)]
    ((kept, size),) = query("SELECT count(*), sum(length(payload)) FROM quarantine")
    assert 20 <= kept < 80
    assert size < bound + 20 * 60_000
    rows = query("SELECT reason, detail, length(payload), payload_sha256 FROM quarantine WHERE batch = 6")
    assert {row[0] for row in rows} == {"reason-0", "reason-1"}
    assert len(rows) == 2
    for _, detail, length, digest in rows:
        assert detail == "bad (the quarantine is full: one of 10 of this batch)"
        assert length == BRIEF_PAYLOAD_BYTES
        assert len(digest) == 32
    # a day later the house is kept: the full day goes, and there is room
    assert store.keep_house(NOW_US + 2 * DAY_US).get("quarantine") in {1, 2, 3, 4}
    assert query("SELECT count(*) FROM quarantine") == [(0,)]
    store.close()


def test_a_result_of_a_command_is_stored_once(store, make, query):
    done = CommandResult("a17", "locate-1", True, "", NOW_US - 5, NOW_US)
    refused = CommandResult("a17", "locate-2", False, "battery \0 low", 2**60, NOW_US)
    store.commit(make.batch(results=[done, refused, done]))
    store.commit(make.batch(results=[done]))
    assert query("SELECT command_id, done, detail, batch FROM command_results ORDER BY command_id") == [
        ("locate-1", True, "", 1),
        ("locate-2", False, "battery \N{SYMBOL FOR NULL} low", 1),
    ]
