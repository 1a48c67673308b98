"""Escalation and suppression by the clock: deterministic, once, and across restarts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from geofence.escalation import Contact, EscalationPolicy, Step, _Policy
from telemetry.store.actions import act as steps_of
from telemetry.store.desk import Desk
from telemetry.store.watch import drive
from tests.telemetry.channels.conftest import webhook

MINUTE_US = 60_000_000
POLICY = EscalationPolicy(
    {
        "desk": Contact("desk", (), ("pager",)),
        "chief": Contact("chief", ("chief@agency.example",), ()),
    },
    (
        _Policy(
            frozenset({"critical", "high"}),
            frozenset(),
            (Step("desk", 0), Step("chief", 5 * MINUTE_US), Step("desk", 15 * MINUTE_US)),
        ),
    ),
)


@pytest.fixture
def act(desk: Desk) -> Callable[[], None]:
    """Does what is due by the test's clock."""

    def run() -> None:
        while desk.act_on_time(lambda: POLICY)[1]:
            pass

    return run


@pytest.fixture
def told(query) -> Callable[[], list[tuple[str, Any]]]:
    """Every message of the outbox that is delivered: its change, and the contact that it asks for."""

    def read() -> list[tuple[str, Any]]:
        rows = query("SELECT payload, contact FROM outbox WHERE suppression_id IS NULL ORDER BY id")
        return [
            (json.loads(payload)["type"].rpartition(".")[2], contact and contact["contact"])
            for payload, contact in rows
        ]

    return read


@pytest.fixture(autouse=True)
def _clock_of_the_store(town, clock):
    """The town's own store lives by the test's clock too."""
    town.store._now_us = clock


def test_each_step_comes_once_at_its_time(town, clock, act, told, desk):
    alert_id = town.raise_alert("a1")
    assert desk.next_deadline_us() == clock()
    act()
    act()
    assert told() == [("opened", None), ("escalated", "desk")]
    assert desk.next_deadline_us() == clock() + 5 * MINUTE_US
    clock.pass_s(5 * 60 - 0.001)
    act()
    assert len(told()) == 2
    clock.pass_s(0.001)
    act()
    assert told()[2:] == [("escalated", "chief")]
    clock.pass_s(3600)
    act()
    act()
    assert told()[3:] == [("escalated", "desk")]
    assert desk.next_deadline_us() is None
    assert alert_id


def test_who_acknowledges_ends_it_and_who_reopens_begins_it_anew(town, clock, act, told):
    alert_id = town.raise_alert("a1")
    act()
    town.store.record_alert_action(alert_id, "acknowledge", "m.ito")
    clock.pass_s(3600)
    act()
    assert [change for change, _ in told()] == ["opened", "escalated", "acknowledged"]
    town.store.record_alert_action(alert_id, "reopen", "m.ito")
    act()
    clock.pass_s(301)
    act()
    assert told()[3:] == [("reopened", None), ("escalated", "desk"), ("escalated", "chief")]


def test_to_assign_an_alert_does_not_end_it(town, clock, act, told):
    alert_id = town.raise_alert("a1")
    assigned = steps_of(
        alert_id, "assign", who="m.ito", note=None, outcome=None, now_us=clock(), assignee="k.osei"
    )
    with town.store._link.use("assigning") as connection:
        drive(connection, assigned)
    clock.pass_s(301)
    act()
    assert [c for c in told() if c[0] == "escalated"] == [("escalated", "desk"), ("escalated", "chief")]


def test_what_was_missed_while_nothing_ran_is_made_up_for_in_order(town, clock, told):
    town.raise_alert("a1")
    clock.pass_s(6 * 60)
    desk = Desk.open(town.url, now_us=clock)  # a program that starts now
    desk.act_on_time(lambda: POLICY)
    desk.close()
    assert told() == [("opened", None), ("escalated", "desk"), ("escalated", "chief")]


def test_two_engines_make_each_step_once(town, clock, told, query):
    for i in range(10):
        town.raise_alert(f"d{i}")
    clock.pass_s(301)
    desks = [Desk.open(town.url, now_us=clock) for _ in range(2)]
    threads = [threading.Thread(target=desk.act_on_time, args=(lambda: POLICY,)) for desk in desks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for desk in desks:
        desk.close()
    assert len(told()) == 10 * 3
    assert (
        query("SELECT alert_id FROM alert_log WHERE change = 'escalated' GROUP BY 1 HAVING count(*) <> 2")
        == []
    )


def test_no_policy_no_steps(town, clock, act, told):
    town.raise_alert("a1", severity="info", rule_id="strap", zone_id=None)
    clock.pass_s(3600)
    act()
    assert told() == [("opened", None)]


def test_a_withdrawn_alert_is_escalated_no_more(town, clock, act, told):
    alert_id = town.raise_alert("a1")
    act()
    town.withdraw_alert(alert_id, "a1")
    clock.pass_s(3600)
    act()
    assert [change for change, _ in told()] == ["opened", "escalated", "withdrawn"]


def test_the_log_names_step_and_contact(town, clock, act, query):
    town.raise_alert("a1")
    clock.pass_s(301)
    act()
    rows = query("SELECT change, who, note FROM alert_log ORDER BY log_id")
    assert rows[1:] == [("escalated", None, "step 1: desk"), ("escalated", None, "step 2: chief")]


def test_a_step_reaches_the_contact_whom_it_names(town, clock, act, receiver, receivers, courier):
    pager = courier(webhook(receiver.url, "pager", deliver="contact"))
    others = receivers()
    elsewhere = courier(webhook(others.url, "elsewhere", deliver="contact"))
    town.raise_alert("a1")
    clock.pass_s(301)
    act()
    for each in (pager, elsewhere):
        while each.turn() == 0.0:
            pass
    (request,) = receiver.requests
    assert request.event["data"]["escalation"] == {"step": 1, "contact": "desk"}
    assert others.requests == []


# --- suppression ------------------------------------------------------------------------------------


def suppress(query, clock, minutes: float, **fits: str) -> int:
    columns = ", ".join(fits)
    ((number,),) = query(
        f"INSERT INTO suppressions (created_time, until_time, reason, created_by, {columns})"
        f" VALUES (to_timestamp(%s), to_timestamp(%s), 'new strap', 'm.ito', {', '.join(['%s'] * len(fits))})"
        " RETURNING suppression_id",
        clock() / 1e6,
        clock() / 1e6 + minutes * 60,
        *fits.values(),
    )
    return number


@pytest.mark.parametrize(
    ("fits", "quiet"),
    [
        ({"device_id": "a1"}, True),
        ({"rule_id": "no-schools"}, True),
        ({"zone_id": "school-1"}, True),
        ({"device_id": "a1", "rule_id": "no-schools", "zone_id": "school-1"}, True),
        ({"device_id": "a1", "rule_id": "strap"}, False),
        ({"device_id": "a2"}, False),
        ({"zone_id": "depot"}, False),
    ],
)
def test_all_that_a_suppression_names_must_fit(town, clock, act, told, query, fits, quiet):
    suppress(query, clock, 10, **fits)
    town.raise_alert("a1")
    act()
    assert told() == ([] if quiet else [("opened", None), ("escalated", "desk")])
    assert query("SELECT count(*) FROM alerts") == [(1,)], "it is recorded all the same"
    assert query("SELECT count(*) FROM outbox WHERE suppression_id IS NULL AND sent_time IS NULL") == [
        (0 if quiet else 2,)
    ]


def test_what_is_still_open_is_told_when_the_quiet_ends(town, clock, act, told, query):
    suppress(query, clock, 10, device_id="a1")
    town.raise_alert("a1")
    done = town.raise_alert("a1", rule_id="strap", zone_id=None)
    town.store.record_alert_action(done, "resolve", "m.ito", outcome="equipment")
    clock.pass_s(599)
    act()
    assert told() == []
    clock.pass_s(1)
    act()
    assert told() == [("unsuppressed", None), ("escalated", "desk")]
    clock.pass_s(301)
    act()
    assert told()[2:] == [("escalated", "chief")], "it counts from the end of the quiet"
    assert query("SELECT count(*) FROM alerts WHERE suppression_id IS NOT NULL") == [(0,)]
    assert query("SELECT count(*) FROM suppressions WHERE released_time IS NULL") == [(0,)]


def test_one_that_is_lifted_ends_at_once(town, clock, act, told, query):
    number = suppress(query, clock, 1000, device_id="a1")
    town.raise_alert("a1")
    query("UPDATE suppressions SET lifted_time = now() WHERE suppression_id = %s", number)
    act()
    assert told()[:1] == [("unsuppressed", None)]


def test_another_one_that_fits_takes_over(town, clock, act, told, query):
    suppress(query, clock, 10, device_id="a1")
    second = suppress(query, clock, 20, rule_id="no-schools")
    town.raise_alert("a1")
    clock.pass_s(601)
    act()
    assert told() == []
    assert query("SELECT suppression_id FROM alerts") == [(second,)]
    clock.pass_s(601)
    act()
    assert [change for change, _ in told()] == ["unsuppressed", "escalated"]


def test_the_end_of_an_alert_that_was_told_is_told(town, clock, act, told, query):
    alert_id = town.raise_alert("a1")
    number = suppress(query, clock, 10, device_id="a1")
    town.raise_alert("a1", alert_id=alert_id)  # the engine learns more
    assert [change for change, _ in told()] == ["opened"]
    town.store.record_alert_action(alert_id, "resolve", "m.ito", outcome="real")
    assert [change for change, _ in told()] == ["opened", "resolved"]
    assert query("SELECT clears IS NOT NULL FROM outbox ORDER BY id DESC LIMIT 1") == [(True,)]
    assert query("SELECT suppression_id FROM outbox WHERE suppression_id IS NOT NULL") == [(number,)]
