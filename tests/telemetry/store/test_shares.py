"""Who holds a share, and what its successor finds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psycopg
import pytest

from geofence import NO_FIX, Devices
from telemetry.columns import CheckIn, Tick
from telemetry.store import StaleEpoch, Store, StoreError, StoreUnavailable
from tests.telemetry.store.batches import DAY_US, NOW_US


def _columns_equal(a, b) -> bool:
    names = [name for name in a.__slots__ if name != "devices"]
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def _sorted(pings):
    return pings.take(np.lexsort((pings.lat_e7, pings.seq, pings.fix_time_us, pings.device)))


def test_a_new_share_begins_at_nothing(store, make, query):
    assert (make.lease.epoch, make.lease.last_batch) == (1, 0)
    assert (make.lease.snapshot, make.lease.snapshot_batch) == (None, 0)
    assert list(store.replay(0, 0)) == []
    ((holder,),) = query("SELECT holder FROM shares")
    assert holder.endswith(f":{os.getpid()}")


def test_a_takeover_stops_the_one_before(store, make, database_url, query):
    store.commit(make.batch(make.pings("a17")))
    successor = Store.open(database_url)
    lease = successor.take_share(0)
    assert (lease.epoch, lease.last_batch) == (2, 1)
    batch = make.batch(make.pings("a17"))
    with pytest.raises((StaleEpoch, StoreUnavailable)):
        store.commit(batch)  # its session was ended
    with pytest.raises(StaleEpoch, match="stop this one"):
        store.commit(batch)
    with pytest.raises(StaleEpoch):
        store.save_snapshot(0, 1, 1, b"old")
    make.lease, make.number = lease, 1
    successor.commit(make.batch(make.pings("a17")))  # and it did not end its successor's
    assert query("SELECT count(*) FROM pings") == [(2,)]
    successor.close()


def test_other_shares_are_left_alone(store, make, database_url, query):
    other = Store.open(database_url)
    assert other.take_share(1).epoch == 1
    store.commit(make.batch(make.pings("a17")))
    assert query("SELECT share, epoch, last_batch FROM shares ORDER BY share") == [(0, 1, 1), (1, 1, 0)]
    other.close()


ZOMBIE = """
    import os, runpy, signal, sys, time
    import telemetry.store.store as module
    from telemetry.store import Store
    Maker = runpy.run_path(sys.argv[2])["Maker"]  # other distributions have "tests" too

    make = Maker()
    store = Store.open(sys.argv[1])
    make.lease = store.take_share(0)
    advance = module.shares.advance

    def stopped_after_it(*args):
        done = advance(*args)
        print("in the transaction", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        return done

    module.shares.advance = stopped_after_it
    batch = make.batch(make.pings("zombie"))
    for _ in range(3):
        try:
            store.commit(batch)
            print("committed", flush=True)
            break
        except Exception as error:
            print(type(error).__name__, flush=True)
            if type(error).__name__ == "StaleEpoch":
                break
"""


def test_a_zombie_stopped_in_its_transaction_holds_up_nobody(store, make, database_url, query):
    """A real process under SIGSTOP holds the share's row; its successor works; SIGCONT changes nothing."""
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(ZOMBIE),
        database_url,
        str(Path(__file__).with_name("batches.py")),
    ]
    zombie = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert zombie.stdout is not None
        assert zombie.stdout.readline() == "in the transaction\n"
        os.waitid(os.P_PID, zombie.pid, os.WSTOPPED)
        began_s = time.monotonic()
        successor = Store.open(database_url)
        make.lease = successor.take_share(0)
        successor.commit(make.batch(make.pings("alive")))
        assert time.monotonic() - began_s < 2.0
        assert make.lease.epoch == 3
        zombie.send_signal(signal.SIGCONT)
        said, _ = zombie.communicate(timeout=20)
    finally:
        zombie.kill()
        zombie.wait()
    assert said.splitlines() == ["StoreUnavailable", "StaleEpoch"]
    successor.commit(make.batch(make.pings("alive")))
    successor.close()
    assert query("SELECT DISTINCT device_id FROM pings") == [("alive",)]


def test_a_row_that_another_program_locks_is_named(store, make, database_url):
    with psycopg.connect(database_url) as other:
        other.execute("SELECT 1 FROM shares WHERE share = 0 FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="holds its row in table shares"):
            store.take_share(0)
    assert store.take_share(0).epoch == 2


def test_snapshots_come_back_and_old_ones_go(store, make, query):
    for n in range(1, 5):
        store.commit(make.batch(make.pings("a17", fix_time_us=NOW_US + n)))
        store.save_snapshot(0, 1, n, bytes([n]) * 100_000)
    store.commit(make.batch(make.pings("a17", fix_time_us=NOW_US + 9)))
    store.save_snapshot(0, 1, 4, b"the same batch again")
    assert query("SELECT batch FROM snapshots ORDER BY batch") == [(3,), (4,)]
    lease = store.take_share(0)
    assert (lease.epoch, lease.last_batch, lease.snapshot, lease.snapshot_batch) == (
        2,
        5,
        b"the same batch again",
        4,
    )
    assert [past.number for past in store.replay(0, lease.snapshot_batch)] == [5]


def test_a_replay_gives_every_input_of_every_batch(store, make, monkeypatch):
    """Batches of all kinds, read back in groups of any size, into the same devices and into fresh ones."""
    rng = np.random.default_rng(7)
    batches = []
    for number in range(30):
        n = int(rng.integers(0, 40)) * (number % 3 > 0)
        pings = make.pings(
            *[f"d{i}" for i in rng.integers(0, 9, n)],
            fix_time_us=NOW_US - rng.integers(0, 20 * DAY_US, n),
            seq=np.arange(n) if number % 2 else -1,
            lat_e7=np.where(rng.random(n) < 0.2, NO_FIX, rng.integers(-900_000_000, 900_000_000, n)),
        )
        check_ins = [
            CheckIn(f"d{k}", NOW_US - 50 * DAY_US - k, NOW_US - DAY_US * (number % 2), "failed", "face")
            for k in range(number % 4)
        ]
        batches.append(
            make.batch(
                pings,
                marks=rng.integers(0, 64, n),
                judged=rng.random(n) < 0.8,
                check_ins=check_ins,
                rules_version=number // 10,
                tick=Tick(NOW_US + number, NOW_US - number) if number % 5 == 0 else None,
            )
        )
        store.commit(batches[-1])
    for most, devices in ((200_000, None), (50, make.devices), (1, Devices(["someone", "else"]))):
        monkeypatch.setattr("telemetry.store.shares.REPLAY_PINGS", most)
        past = list(store.replay(0, 10, devices))
        assert [p.number for p in past] == list(range(11, 31))
        for there, batch in zip(past, batches[10:], strict=True):
            here = batch.admitted
            assert there.rules_version == batch.rules_version
            assert there.tick == batch.tick
            assert there.check_ins == here.check_ins
            ids = there.pings.devices.ids
            slots = make.devices.slots([ids[slot] for slot in there.pings.device])
            order = np.lexsort((there.pings.lat_e7, there.pings.seq, there.pings.fix_time_us, slots))
            expected = np.lexsort(
                (here.pings.lat_e7, here.pings.seq, here.pings.fix_time_us, here.pings.device)
            )
            assert np.array_equal(slots[order], here.pings.device[expected])
            for name in here.pings.__slots__[2:]:
                assert np.array_equal(
                    getattr(there.pings, name)[order], getattr(here.pings, name)[expected]
                ), name
            assert np.array_equal(there.marks[order], here.marks[expected])
            assert np.array_equal(there.judged[order], here.judged[expected])


def test_the_store_can_be_asked_in_the_middle_of_a_replay(store, make):
    for _ in range(3):
        store.commit(make.batch(make.pings("a17")))
    for past in store.replay(0, 0, make.devices):
        assert store.contains(past.pings).all()


def test_rows_that_are_missing_stop_a_replay(store, make, query):
    store.commit(make.batch(make.pings("a17", "b2")))
    query("DELETE FROM pings WHERE device_id = 'b2'")
    with pytest.raises(
        StoreError, match="batch 1: 2 pings and 0 check-ins were committed, 1 and 0 are there"
    ):
        list(store.replay(0, 0))


def test_a_replay_reads_little_of_a_large_day(store, make, query):
    """The index by batch leads to the rows: most of the day's pages are not read."""
    n = 20_000
    ids = [f"d{i}" for i in range(n)]
    for number in range(10):
        store.commit(make.batch(make.pings(*ids, fix_time_us=NOW_US + number)))
    query("ANALYZE pings")
    query(
        "SELECT brin_summarize_new_values(c.oid) FROM pg_class c JOIN pg_am a ON a.oid = c.relam"
        " WHERE a.amname = 'brin' AND c.relkind = 'i'"
    )  # as autovacuum does
    plan = "\n".join(
        row[0]
        for row in query(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING off) SELECT * FROM pings"
            " WHERE share = 0 AND batch BETWEEN 9 AND 10 AND fix_time BETWEEN %s AND %s",
            *(query("SELECT min(first_fix_time), max(last_fix_time) FROM batches WHERE number > 8")[0]),
        )
    )
    assert "Bitmap Index Scan on" in plan
    assert "pings_batch" in plan or "batch_fix_time" in plan
    ((pages,),) = query(
        "SELECT sum(pg_relation_size(inhrelid)) / 8192 FROM pg_inherits WHERE inhparent = 'pings'::regclass"
    )
    read = sum(
        int(part.split("=")[1])
        for line in plan.splitlines()
        if "Heap Blocks" in line
        for part in line.split()
        if "lossy=" in part
    )
    assert 0 < read < float(pages) * 0.4, plan
