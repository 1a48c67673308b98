"""Decisions in words that a person understands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from geofence._kernels.evidence import confidence_ppm
from geofence.records import AMENDED, CLOSED, FLAG_LATE, HELD_BACK, WITHDRAWN
from geofence.units import NO_TIME, SECOND_US, to_rfc3339

if TYPE_CHECKING:
    from geofence.engine import Engine
    from geofence.pings import Devices
    from geofence.ruleset import Rule, Ruleset

__all__ = ["battery_left_s", "beliefs", "sentence"]

_CONDITION_SAYS: Final = {
    "strap_closed": "strap open",
    "case_closed": "case open",
    "no_jamming": "jamming of its receiver reported",
    "plausible_movement": "movement that is not plausible (jumps, frozen or too good positions)",
}
_LONGEST_NAME: Final = 80
_STATES: Final = ("unknown", "lawful", "wrong")


def sentence(ruleset: Ruleset, devices: Devices, row: Any) -> str:
    """One row of VIOLATION as a sentence.

    "a17 inside oak-street by 62 m +- 9 m for 4 min 10 s, 5 fixes, 99.8 % sure" is its shape; a withdrawn
    or held back one says so first.
    """
    rule = ruleset.rules[row["rule"]]
    device_id = devices.ids[row["device"]]
    if rule.require == "check_in":
        return _check_in(rule, device_id, row)
    parts = [_what(ruleset, rule, row)]
    closed_us, opened_us = int(row["closed_us"]), int(row["opened_us"])
    until_us = closed_us if closed_us != NO_TIME else int(row["confirmed_us"])
    if until_us - opened_us >= SECOND_US:
        parts[0] += f" for {_length(until_us - opened_us)}"
    if rule.about_zones:
        fixes = int(row["fixes"])
        parts.append("1 fix" if fixes == 1 else f"{fixes} fixes")
        if not _crossed(rule, row):  # a straight line between two fixes has no belief
            parts.append(f"{_percent(int(row['confidence_ppm']))} % sure")
    if closed_us != NO_TIME and row["change"] in (CLOSED, AMENDED):
        parts.append(f"ended {to_rfc3339(closed_us)}")
    lead = ""
    if row["change"] == WITHDRAWN:
        lead = "withdrawn, later pings refute it: "
    elif row["change"] == HELD_BACK:
        sure = row["confidence_ppm"] >= confidence_ppm(rule.profile.open_log_odds)
        lead = f"held back, not {'for long' if sure else 'sure'} enough: "
    elif row["flags"] & FLAG_LATE:
        lead = "learned late, from pings that came after newer ones: "
    return f"{lead}{device_id} {', '.join(parts)}"


def _check_in(rule: Rule, device_id: str, row: Any) -> str:
    """Failed (a check-in was seen: one "fix"), missed, late; and verified after all."""
    opened, closed_us = to_rfc3339(int(row["opened_us"])), int(row["closed_us"])
    failed = int(row["fixes"]) > 0
    if row["change"] == WITHDRAWN:
        return f"withdrawn, learned late: {device_id} checked in on time"
    if row["change"] == HELD_BACK:
        return f"{device_id} checked in late, within grace: due until {opened}, came {to_rfc3339(closed_us)}"
    what = f"failed a check-in at {opened}" if failed else f"missed a check-in that was due until {opened}"
    if not failed and rule.grace_us:
        what += f" ({_length(rule.grace_us)} of grace included)"
    after = "" if closed_us == NO_TIME else f", verified {to_rfc3339(closed_us)}"
    return f"{device_id} {what}{after}"


def _crossed(rule: Rule, row: Any) -> bool:
    """Whether the row is of a track through a zone (crossing = true); no fix of it has a depth."""
    return rule.crossing and int(row["depth_error_mm"]) < 0


def _what(ruleset: Ruleset, rule: Rule, row: Any) -> str:
    if not rule.about_zones:
        if rule.require == "battery":
            return f"battery below {rule.above_pct} %"
        if rule.require == "contact":
            return f"silent for more than {_length(rule.within_us)}"
        if rule.require == "clock":
            return f"clock wrong by more than {_length(rule.within_us)}"
        if rule.require == "fix":
            return f"without a position for more than {_length(rule.within_us)}"
        return _CONDITION_SAYS[rule.require]
    exclusion = _exclusion(ruleset, int(row["zone"]))
    zone = _name(ruleset, int(row["zone"])) or ruleset.zones.ids[row["zone"]]
    depth, error = int(row["depth_mm"]), int(row["depth_error_mm"])
    by = ""
    if depth > 0:
        by = f" by {_metres(depth)}" + (f" ± {_metres(error)}" if error >= 0 else "")
    if rule.warns:
        side = "before the edge" if rule.require == "outside" else "inside the edge"
        return f"past the warning line of {zone} ({_metres(rule.offset_mm)} {side}){by}"
    if _crossed(rule, row):
        return f"passed through {exclusion} on the straight line between fixes"
    if rule.require == "outside":
        return f"inside {exclusion}{by}"
    return f"outside {zone}{by}"


def _name(ruleset: Ruleset, zone: int) -> str | None:
    """What people call the zone: its property ``name``, on one line; None: it has none."""
    name = ruleset.document["zones"]["features"][zone]["properties"].get("name")
    return " ".join(name.split())[:_LONGEST_NAME] or None if isinstance(name, str) else None


def _exclusion(ruleset: Ruleset, zone: int) -> str:
    name = _name(ruleset, zone)
    if name is None:
        return f"exclusion zone {ruleset.zones.ids[zone]}"
    return f"{name}'s exclusion zone"


def _metres(length_mm: int) -> str:
    metres = length_mm / 1000
    if metres >= 10_000:
        return f"{metres / 1000:.1f} km"
    return f"{metres:.0f} m" if metres >= 10 or metres == round(metres) else f"{metres:.1f} m"


def _length(length_us: int) -> str:
    seconds = length_us // SECOND_US
    parts = [
        (seconds // 86_400, "d"),
        (seconds // 3600 % 24, "h"),
        (seconds // 60 % 60, "min"),
        (seconds % 60, "s"),
    ]
    said = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(said[:2]) or "0 s"


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:.1f}" if ppm < 1_000_000 else "100"


def battery_left_s(engine: Engine, device_id: str) -> float | None:
    """The charge divided by its slope since it last rose."""
    if device_id not in engine.devices:
        return None
    slot = engine.devices.slot(device_id)
    if slot >= engine.state.used[0]:
        return None
    device = engine.state.devices[slot]
    fallen = int(device["battery_from"]) - int(device["battery_pct"])
    if device["battery_us"] == NO_TIME or fallen <= 0:
        return None
    return (
        int(device["battery_pct"]) * (int(device["ping_us"]) - int(device["battery_us"])) / fallen / SECOND_US
    )


def beliefs(engine: Engine, device_id: str) -> list[dict[str, Any]]:
    """Every zone in question for one device: rule, zone, log-odds, confidence, state, distance."""
    state = engine.state
    if device_id not in engine.devices:
        return []
    slot = engine.devices.slot(device_id)
    if slot >= state.used[0] or not state.devices["known"][slot]:
        return []
    device = state.devices[slot]
    found: list[dict[str, Any]] = []
    for duty in state.duties[int(device["duty"]) : int(device["duty_stop"])]:
        rows = list(range(int(duty["first"]), int(duty["stop"])))
        chained = int(duty["chain"])
        while chained >= 0:
            rows.append(chained)
            chained = int(state.pairs[chained]["next"])
        for pair in state.pairs[rows]:
            belief = int(pair["belief"])
            found.append(
                {
                    "rule_id": engine.ruleset.rules[duty["rule"]].id,
                    "zone_id": engine.ruleset.zones.ids[pair["zone"]],
                    "log_odds": belief / 1024,
                    "confidence": confidence_ppm(belief) / 1e6,
                    "state": _STATES[pair["state"]],
                    "distance_mm": int(pair["last_mm"]),
                }
            )
    return found
