"""Other rules from a stated time on: what goes on, what ends, what begins."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from geofence._kernels.deadlines import begin_check_ins
from geofence._kernels.kinds import KINDS
from geofence._kernels.world import close_row
from geofence.plan import Calendars, Plan
from geofence.state import FAR_FUTURE, NONE, State, blank_device
from geofence.units import NO_TIME

if TYPE_CHECKING:
    from geofence.engine import Engine
    from geofence.eras import Era
    from geofence.records import Decided
    from geofence.ruleset import Rule, Ruleset

__all__ = ["adopt"]


def adopt(
    engine: Engine,
    ruleset: Ruleset,
    effective_us: int,
    version: int = 0,
    *,
    beside: Engine | None = None,
) -> Decided:
    """Close what the old rules had open and the new ones do not repeat; carry over what is unchanged.

    A rule is unchanged when its text is, and its zones are, and whom it binds it bound before: its beliefs,
    open violations and windows go on. A new or changed rule begins at effective_us, grace included.

    beside : an engine that judges by ``ruleset`` already, whose plan and index of zones are shared; then the
             change is one that is gone through again
    """
    state = engine.state
    known = np.flatnonzero(state.devices["known"][: int(state.used[0])]).astype(np.int32)
    engine.let_time_act(known[state.due_us[known] <= effective_us], effective_us)
    old, old_ruleset = engine.plan, engine.ruleset
    same = _unchanged(old_ruleset, ruleset)
    plan = _plan(old, ruleset, same, effective_us) if beside is None else beside.plan
    fresh = State.empty()
    if len(known):
        count = int(state.used[0])
        fresh.reserve(devices=count)
        fresh.devices[:count] = blank_device()
        fresh.used[0] = count
        plan.enlist(fresh, known.tolist(), [engine.devices.ids[slot] for slot in known.tolist()])
    zone_of = _zones_again(old_ruleset, ruleset)
    change = _Change(engine, state, fresh, same, zone_of, effective_us)
    untouched = np.zeros(int(state.used[0]), np.bool_)
    for slot in known.tolist():
        untouched[slot] = _nothing_changes(change, plan, slot)
        _carry_device(change, slot)
        if not untouched[slot]:  # older pings are for the rules before
            fresh.devices["acted_us"][slot] = max(int(fresh.devices["acted_us"][slot]), effective_us)
    decided = engine.decided(np.zeros(0, np.bool_))
    era = engine.eras.end(engine, ruleset, effective_us, untouched, lasts=beside is None)
    engine.ruleset, engine.effective_us, engine.version = ruleset, effective_us, version
    engine.state = fresh
    if beside is None:
        engine.use(plan)
    else:
        engine.plan, engine.questions = plan, beside.questions
    _renumber_ledger(engine, era, old_ruleset, same, zone_of)
    plan.calendars.cover(effective_us, max(effective_us, engine.watermark_us))
    _settle_due(engine, known, effective_us, anew=old_ruleset.leaves != ruleset.leaves)
    return decided


def _plan(old: Plan, ruleset: Ruleset, same: dict[int, int], effective_us: int) -> Plan:
    """The new rules made ready: those that go on began when they did, the others now."""
    carried = {ruleset.rules[new].id for new in same.values()}
    effective = {
        rule.id: old.effective.get(rule.id, NO_TIME) if rule.id in carried else effective_us
        for rule in ruleset.rules
    }
    return Plan(ruleset, {k: v for k, v in effective.items() if v != NO_TIME}, Calendars())


def _nothing_changes(change: _Change, plan: Plan, slot: int) -> bool:
    """Whether the device goes on as if there had been no change: the same rules, in the same order, at the
    same times.
    """
    spans = []
    for devices in (change.state.devices, change.fresh.devices):
        row = devices[slot]
        spans.append(slice(int(row["duty"]), int(row["duty_stop"])))
    before, after = change.state.duties[spans[0]], change.fresh.duties[spans[1]]
    if [change.same.get(rule, NONE) for rule in before["rule"].tolist()] != after["rule"].tolist():
        return False
    if before["until_us"].tolist() != after["until_us"].tolist():
        return False
    old, new = change.engine.plan.calendars.all, plan.calendars.all
    numbers = zip(before["calendar"].tolist(), after["calendar"].tolist(), strict=True)
    return all(old[a] == new[b] for a, b in numbers)


def _renumber_ledger(
    engine: Engine, era: Era, old: Ruleset, same: dict[int, int], zone_of: dict[int, int]
) -> None:
    """Keep what was said of rules and zones that go on, renumbered; leave the rest to the era."""
    ledger = engine.ledger
    ledger.gather()
    rule_map = np.full(len(old.rules) + 1, NONE, np.int32)
    zone_map = np.full(len(old.zones) + 1, NONE, np.int32)
    for before, after in same.items():
        rule_map[before] = after
    for before, after in zone_of.items():
        zone_map[before] = after
    rows = ledger.violations
    rule, zone = rule_map[rows["rule"]], zone_map[rows["zone"]]
    keep = (rule != NONE) & ((zone != NONE) | (rows["zone"] == NONE))
    moves = ledger.transitions
    zone_after = zone_map[moves["zone"]]
    stay = zone_after != NONE
    era.left.add(rows[~keep], ledger.when[~keep], moves[~stay])
    ledger.violations, ledger.when = rows[keep], ledger.when[keep]
    ledger.violations["rule"], ledger.violations["zone"] = rule[keep], zone[keep]
    ledger.transitions = moves[stay]
    ledger.transitions["zone"] = zone_after[stay]


def _features(ruleset: Ruleset) -> dict[str, str]:
    """Each zone's text."""
    return {
        feature["properties"]["id"]: json.dumps(feature, sort_keys=True)
        for feature in ruleset.document["zones"]["features"]
    }


def _zones_again(old: Ruleset, new: Ruleset) -> dict[int, int]:
    """Old zone index -> new one, of zones that have not changed."""
    before, after = _features(old), _features(new)
    place = {zone_id: i for i, zone_id in enumerate(new.zones.ids)}
    return {
        i: place[zone_id]
        for i, zone_id in enumerate(old.zones.ids)
        if zone_id in place and before.get(zone_id) == after.get(zone_id)
    }


def _unchanged(old: Ruleset, new: Ruleset) -> dict[int, int]:
    """Old rule index -> new one, of rules whose text and zones have not changed."""
    zone_of = _zones_again(old, new)
    place = {rule.id: i for i, rule in enumerate(new.rules)}
    same: dict[int, int] = {}
    for i, rule in enumerate(old.rules):
        j = place.get(rule.id)
        if j is None or any(zone not in zone_of for zone in rule.zones):
            continue
        if rule.answer_us and old.call_key != new.call_key:
            continue  # its calls come at other times now
        renumbered: Rule = replace(rule, zones=tuple(sorted(zone_of[zone] for zone in rule.zones)))
        if renumbered == new.rules[j]:
            same[i] = j
    return same


@dataclass(frozen=True, slots=True)
class _Change:
    """The move from one state to another: which rules and zones go on, under which numbers."""

    engine: Engine
    state: State
    fresh: State
    same: dict[int, int]
    zone_of: dict[int, int]
    effective_us: int


def _carry_device(change: _Change, slot: int) -> None:
    """Copy what goes on for one device; close what does not."""
    state, fresh = change.state, change.fresh
    row, target = state.devices[slot], fresh.devices[slot]
    spans = {name: int(target[name]) for name in ("duty", "duty_stop", "pair", "pair_stop")}
    fresh.devices[slot] = row
    for name, value in spans.items():
        fresh.devices[slot][name] = value
    fresh.devices[slot]["chained"] = 0
    fresh.devices[slot]["nearest_mm"] = 0  # not known of the new zones: the next track is asked about
    new_duty = {int(fresh.duties[u]["rule"]): u for u in range(spans["duty"], spans["duty_stop"])}
    for u in range(int(row["duty"]), int(row["duty_stop"])):
        duty = state.duties[u]
        to = new_duty.get(change.same.get(int(duty["rule"]), NONE), NONE)
        if to != NONE:
            _carry_duty(change, slot, duty, to)
            continue
        _end(change, int(duty["open"]))
        for p in _pairs(state, duty):
            _end(change, int(state.pairs[p]["open"]))


def _pairs(state: State, duty: Any) -> list[int]:
    rows = list(range(int(duty["first"]), int(duty["stop"])))
    p = int(duty["chain"])
    while p != NONE:
        rows.append(p)
        p = int(state.pairs[p]["next"])
    return rows


def _end(change: _Change, k: int) -> None:
    if k != NONE:
        change.engine.make_room_for(2)
        close_row(change.engine.world(), change.engine.said, k, change.effective_us, change.effective_us)


def _carry_duty(change: _Change, slot: int, duty: Any, to: int) -> None:
    """An unchanged rule goes on for a device: same beliefs, same open violations."""
    state, fresh = change.state, change.fresh
    target = fresh.duties[to]
    rule = int(target["rule"])
    for name in ("since_us", "told_us", "fixes", "wrong", "score", "lag", "due_us"):
        target[name] = duty[name]
    target["open"] = _carry_open(change, int(duty["open"]), rule)
    place = {int(fresh.pairs[p]["zone"]): p for p in range(int(target["first"]), int(target["stop"]))}
    for p in range(int(duty["first"]), int(duty["stop"])):
        at = place[change.zone_of[int(state.pairs[p]["zone"])]]
        records = fresh.pairs[at]["records"]
        _carry_pair(change, p, at, rule)
        fresh.pairs[at]["records"] = records
    p = int(duty["chain"])
    last = NONE
    while p != NONE:
        fresh.reserve(pairs=1)
        at = int(fresh.used[2])
        fresh.used[2] += 1
        _carry_pair(change, p, at, rule)
        fresh.pairs[at]["next"] = NONE
        if last == NONE:
            target["chain"] = at
        else:
            fresh.pairs[last]["next"] = at
        last = at
        fresh.devices[slot]["chained"] += 1
        p = int(state.pairs[p]["next"])


def _carry_pair(change: _Change, p: int, at: int, rule: int) -> None:
    pairs = change.fresh.pairs
    pairs[at] = change.state.pairs[p]
    pairs[at]["zone"] = change.zone_of[int(pairs[at]["zone"])]
    pairs[at]["open"] = _carry_open(change, int(pairs[at]["open"]), rule)


def _carry_open(change: _Change, k: int, rule: int) -> int:
    if k == NONE:
        return NONE
    fresh = change.fresh
    fresh.reserve(opens=1)
    at = int(fresh.used[3])
    fresh.used[3] += 1
    fresh.opens[at] = change.state.opens[k]
    fresh.opens[at]["rule"] = rule
    if fresh.opens[at]["zone"] >= 0:
        fresh.opens[at]["zone"] = change.zone_of[int(fresh.opens[at]["zone"])]
    return at


def _settle_due(engine: Engine, known: np.ndarray[Any, Any], effective_us: int, *, anew: bool) -> None:
    """When each device is due next; new contact rules count silence from their start, check-ins likewise.

    anew : leaves were granted or revoked, so the windows of rules that go on are others: look at each at once
    """
    state, rules = engine.state, engine.plan.rules
    used = int(state.used[1])
    contact, check_in = KINDS.index("contact"), KINDS.index("check_in")
    for slot in known.tolist():
        row = state.devices[slot]
        for duty in state.duties[int(row["duty"]) : int(row["duty_stop"])]:
            rule = rules[duty["rule"]]
            if rule["kind"] == contact and duty["wrong"] == 0 and row["ping_us"] != NO_TIME:
                duty["due_us"] = max(int(row["ping_us"]) + int(rule["within_us"]), effective_us)
            elif anew and rule["kind"] != check_in and duty["due_us"] < FAR_FUTURE:
                duty["due_us"] = effective_us
        begin_check_ins(engine.world(), slot, effective_us)
    assert used == int(state.used[1])
