"""The way of a batch on the distribution's PostgreSQL, an older version than the embedded one."""

from __future__ import annotations

import asyncio

import pytest

from telemetry.columns import AlertChange, Outgoing
from telemetry.store import Reader, Store
from tests.telemetry.store.batches import DAY_US, DOCUMENT, NOW_US

pytestmark = pytest.mark.distro_postgres


def test_a_batch_goes_in_and_comes_out(distro_database_url, make):
    store = Store.open(distro_database_url, now_us=lambda: NOW_US)
    store.migrate()
    assert store.extension is None
    make.lease = store.take_share(0)
    assert store.save_ruleset(DOCUMENT, "digest", NOW_US) == 1
    pings = make.pings("a17", "b2", fix_time_us=[NOW_US, NOW_US - 20 * DAY_US])
    violation = {"violation_id": 7, "device": 0, "rule": 1, "severity": 2}
    batch = make.batch(
        pings,
        decided=[make.decided([{"device": 0, "zone": 1}], [violation])],
        alerts=[AlertChange(7, "opened", 7, "a17", "rule-1", None, "high", NOW_US, "x")],
        outgoing=[Outgoing(7, "a17", "topic", b"{}", True)],
    )
    store.commit(batch)
    store.commit(batch)
    assert store.contains(pings).all()
    (past,) = store.replay(0, 0, make.devices)
    assert sorted(past.pings.fix_time_us) == sorted(pings.fix_time_us)
    store.save_snapshot(0, make.lease.epoch, 1, b"state")
    assert store.keep_house(NOW_US) == {}
    assert len(store.pending(10)) == 1

    async def read():
        reader = Reader(distro_database_url)
        await reader.open()
        try:
            await reader.act_on_alert(7, "acknowledge", who="m.ito")
            page = await reader.devices(cursor=None, limit=10)
            violations = await reader.violations(state="open")
            near = await reader.near(350_000_000, -800_000_000, 50.0, 0, NOW_US + 1)
            return [d.device_id for d in page.items], violations.items, [row.device_id for row in near]
        finally:
            await reader.close()

    devices, violations, near = asyncio.run(read())
    assert devices == ["a17", "b2"]
    assert [v.violation_id for v in violations] == [7]
    assert near == ["a17", "b2"]
    store.close()
