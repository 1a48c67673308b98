"""Rules as numbers, and which of them bind a device: the rows that a device gets when it first speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from geofence._kernels.kinds import KINDS
from geofence.calls import Draw
from geofence.schedule import Calendar, Schedule
from geofence.state import DUTY, FAR_FUTURE, NONE, PAIR, RULE
from geofence.units import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from geofence.ruleset import Rule, Ruleset
    from geofence.state import State

__all__ = ["Calendars", "Plan", "calendar_document", "calendar_of", "year_of"]

_MOST_PRIVATE_ZONES: Final = 64  # a rule over more keeps only those in reach, even if it names one device
_YEAR_US: Final = 31_556_952_000_000
_EPOCH_YEAR: Final = 1970


class Calendars:
    """Calendars by number, compiled for the years in question.

    start : int64 (c+1,), edges: int64 (e,); see ``world.World``
    """

    def __init__(self, calendars: Iterable[Calendar] = ()) -> None:
        self.all: list[Calendar] = []
        self._number: dict[Calendar, int] = {}
        self.first_year = self.last_year = 0
        self._compiled = -1
        self._parts: list[NDArray[np.int64]] = []
        self.start: NDArray[np.int64] = np.zeros(1, np.int64)
        self.edges: NDArray[np.int64] = np.zeros(0, np.int64)
        for calendar in calendars:
            self.number(calendar)

    def number(self, calendar: Calendar) -> int:
        """The calendar's number; equal ones share it."""
        found = self._number.get(calendar)
        if found is None:
            found = self._number[calendar] = len(self.all)
            self.all.append(calendar)
        return found

    def cover(self, first_us: int, last_us: int) -> None:
        """Compile so that every time from first_us to a year past last_us is known."""
        first, last = year_of(first_us) - 1, year_of(last_us) + 1
        if self.last_year:
            first, last = min(first, self.first_year), max(last, self.last_year)
        if (first, last, len(self.all)) == (self.first_year, self.last_year, self._compiled):
            return
        self.cover_years(first, last)

    def cover_years(self, first: int, last: int) -> None:
        """Compile every calendar for these years."""
        if (first, last) != (self.first_year, self.last_year):
            self._parts = []
        # a calendar that comes later is added: with drawn calls each device has its own
        self._parts += [calendar.windows(first, last) for calendar in self.all[len(self._parts) :]]
        parts = self._parts
        self.start = np.concatenate(([0], np.cumsum([len(part) for part in parts], dtype=np.int64))).astype(
            np.int64
        )
        self.edges = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        self.first_year, self.last_year, self._compiled = first, last, len(self.all)

    @property
    def horizon_us(self) -> int:
        """Up to here the edges are complete."""
        return (
            int(np.datetime64(f"{self.last_year + 1:04d}-01-01", "us").astype(np.int64))
            if self.last_year
            else 0
        )


def year_of(time_us: int) -> int:
    """The calendar year, UTC."""
    return int(np.datetime64(time_us, "us").astype("datetime64[Y]").astype(int)) + _EPOCH_YEAR


class Plan:
    """A rule set made ready for the kernels.

    rules                  : RULE (r,)
    zone_start, zone_rules : the chained rules of each zone, as offsets and a flat list
    shared                 : int32 (s,)  zones of chained rules, ascending
    """

    def __init__(self, ruleset: Ruleset, effective: dict[str, int], calendars: Calendars) -> None:
        """``effective``: rule id -> time it took effect, where that is not "since ever"."""
        self.ruleset = ruleset
        self.effective = effective
        self.calendars = calendars
        self.rules = np.zeros(len(ruleset.rules), RULE)
        for row, rule in zip(self.rules, ruleset.rules, strict=True):
            _fill(row, rule)
        chained = [i for i in range(len(ruleset.rules)) if self.rules["chained"][i]]
        pairs = np.array([(zone, i) for i in chained for zone in ruleset.rules[i].zones], np.int64).reshape(
            -1, 2
        )
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        self.zone_rules = pairs[order, 1].astype(np.int32)
        self.zone_start = np.searchsorted(pairs[order, 0], np.arange(len(ruleset.zones) + 1)).astype(np.int64)
        self.shared = np.unique(pairs[:, 0]).astype(np.int32)
        self.reach_offset_mm = max((int(self.rules["offset_mm"][i]) for i in chained), default=0)
        self.crosses = bool(self.rules["chained"].any())
        self._by_subject: dict[str, list[int]] = {}
        for i, rule in enumerate(ruleset.rules):
            for subject in rule.subjects:
                self._by_subject.setdefault(subject, []).append(i)
        self._plain_calendar = [
            calendars.number(rule.calendar((), self._start(rule))) for rule in ruleset.rules
        ]
        self._leaves_of: dict[str, list[int]] = {}
        for k, leave in enumerate(ruleset.leaves):
            for subject in leave.subjects:
                self._leaves_of.setdefault(subject, []).append(k)
        self._zone_sets: dict[int, frozenset[int]] = {}

    def _start(self, rule: Rule) -> int:
        return self.effective.get(rule.id, NO_TIME)

    def rules_of(self, device_id: str) -> tuple[list[int], frozenset[str]]:
        """Indices of the rules that bind a device, ascending, and the subjects by which they may name it."""
        ruleset = self.ruleset
        subjects = ruleset.subjects_of(device_id)
        found = sorted({i for subject in subjects for i in self._by_subject.get(subject, ())})
        entry = ruleset.roster.get(device_id) if ruleset.roster is not None else None
        if entry is not None and entry.layers is not None:
            found = [
                i for i in found if ruleset.rules[i].layer is None or ruleset.rules[i].layer in entry.layers
            ]
        return found, subjects

    def private_zones(self) -> list[int]:
        """The zones of rules that keep a pair for each zone, ascending."""
        chained = self.rules["chained"].tolist()
        rules = zip(self.ruleset.rules, chained, strict=True)
        return sorted(
            {zone for rule, shared in rules if rule.about_zones and not shared for zone in rule.zones}
        )

    def enlist(self, state: State, slots: Sequence[int], device_ids: Sequence[str]) -> None:
        """Give each of these devices its rows; they must have none yet."""
        duties: list[tuple[int, ...]] = []
        pairs: list[tuple[int, int]] = []
        duty_at, pair_at = int(state.used[1]), int(state.used[2])
        spans: list[tuple[int, int, int, int]] = []
        for device_id in device_ids:
            own_duties, own_pairs = len(duties), len(pairs)
            self._enlist_one(device_id, duties, pairs, duty_at, pair_at)
            spans.append(
                (duty_at + own_duties, duty_at + len(duties), pair_at + own_pairs, pair_at + len(pairs))
            )
        highest = max(slots) + 1
        state.reserve(devices=max(0, highest - int(state.used[0])), duties=len(duties), pairs=len(pairs))
        state.used[0] = max(int(state.used[0]), highest)
        state.used[1] += len(duties)
        state.used[2] += len(pairs)
        rows = state.devices
        index = np.asarray(slots, np.int64)
        columns = np.array(spans, np.int32).reshape(-1, 4)
        for k, name in enumerate(("duty", "duty_stop", "pair", "pair_stop")):
            rows[name][index] = columns[:, k]
        rows["known"][index] = 1
        if duties:
            table = np.array(duties, np.int64)
            part = state.duties[duty_at : duty_at + len(duties)]
            part[:] = np.zeros(1, DUTY)
            for k, name in enumerate(("rule", "calendar", "first", "stop", "until_us")):
                part[name] = table[:, k]
            part["chain"] = part["open"] = NONE
            part["due_us"] = FAR_FUTURE
            part["since_us"] = part["told_us"] = NO_TIME
        if pairs:
            zones = np.array(pairs, np.int32)
            part = state.pairs[pair_at : pair_at + len(pairs)]
            part[:] = _blank_pair()
            part["zone"] = zones[:, 0]
            part["records"] = zones[:, 1]

    def _enlist_one(
        self,
        device_id: str,
        duties: list[tuple[int, ...]],
        pairs: list[tuple[int, int]],
        duty_at: int,
        pair_at: int,
    ) -> None:
        ruleset = self.ruleset
        found, subjects = self.rules_of(device_id)
        entry = ruleset.roster.get(device_id) if ruleset.roster is not None else None
        until_us = FAR_FUTURE if entry is None or entry.until_us == NO_TIME else entry.until_us
        written: list[int] = []  # rules that write transitions, so far
        del duty_at
        for i in found:
            rule = ruleset.rules[i]
            first = pair_at + len(pairs)
            records = bool(self.rules["records"][i])
            if rule.about_zones and not self.rules["chained"][i]:
                for zone in rule.zones:
                    taken = any(zone in self._zones_of(j) for j in written)
                    pairs.append((zone, int(records and not taken)))
            if records:
                written.append(i)
            duties.append((i, self._calendar(i, device_id, subjects), first, pair_at + len(pairs), until_us))

    def _zones_of(self, rule: int) -> frozenset[int]:
        found = self._zone_sets.get(rule)
        if found is None:
            found = self._zone_sets[rule] = frozenset(self.ruleset.rules[rule].zones)
        return found

    def _calendar(self, i: int, device_id: str, subjects: frozenset[str]) -> int:
        rule = self.ruleset.rules[i]
        if not rule.answer_us and not any(subject in self._leaves_of for subject in subjects):
            return self._plain_calendar[i]
        return self.calendars.number(self.calendar_of(i, device_id))

    def calendar_of(self, i: int, device_id: str) -> Calendar:
        """When rule i is in force for a device, less its leaves."""
        subjects = self.ruleset.subjects_of(device_id)
        granted = {k for subject in subjects for k in self._leaves_of.get(subject, ())}
        rule = self.ruleset.rules[i]
        rule_id = rule.id.removesuffix(".warning") if rule.warns else rule.id
        leaves = tuple(
            sorted(
                (leave.from_us, leave.until_us)
                for leave in (self.ruleset.leaves[k] for k in granted)
                if not leave.rules or rule_id in leave.rules
            )
        )
        draw = None
        if rule.answer_us and self.ruleset.call_key is not None:
            draw = Draw.of(self.ruleset.call_key, rule.id, device_id, rule.answer_us, rule.calls)
        return rule.calendar(leaves, self._start(rule), draw)


def _blank_pair() -> NDArray[Any]:
    from geofence._kernels.evidence import CLIP  # noqa: PLC0415 - one number of the kernels

    row = np.zeros(1, PAIR)
    for name in ("next", "open", "stamp", "depth_error_mm", "last_mm"):
        row[name] = NONE
    row["since_us"] = row["first_us"] = row["told_us"] = NO_TIME
    row["peak"] = -CLIP
    return row


def _fill(row: Any, rule: Rule) -> None:
    """One RULE row."""
    profile = rule.profile
    row["kind"] = KINDS.index(rule.require)
    row["sense"] = -1 if rule.require == "inside" else 1
    row["severity"] = rule.severity
    row["open_log_odds"] = profile.open_log_odds
    # a rule that only records treats both sides alike
    row["clear_log_odds"] = -profile.open_log_odds if rule.require == "none" else profile.clear_log_odds
    row["hysteresis_mm"] = profile.hysteresis_mm
    row["offset_mm"] = rule.offset_mm
    row["above_pct"] = rule.above_pct
    row["dwell_us"] = profile.dwell_us
    row["cross_us"] = profile.cross_within_us
    row["within_us"] = rule.within_us
    row["grace_us"] = rule.grace_us if rule.require == "check_in" else 0
    row["beacon"] = rule.beacon
    row["crossing"] = rule.crossing
    row["records"] = rule.about_zones and not rule.warns
    row["chained"] = (
        rule.require in {"none", "outside"}
        and bool(rule.zones)
        and (
            rule.layer is not None
            or len(rule.zones) > _MOST_PRIVATE_ZONES
            or any(not subject.startswith(("device:", "participant:")) for subject in rule.subjects)
        )
    )


def calendar_document(calendar: Calendar) -> list[Any]:
    """A calendar as JSON values, for a snapshot."""
    schedule = calendar.schedule
    return [
        [schedule.when, schedule.timezone, schedule.country],
        calendar.grace_us,
        calendar.from_us,
        calendar.until_us,
        [list(leave) for leave in calendar.leaves],
        calendar.raw,
        None if calendar.draw is None else [calendar.draw.seed, calendar.draw.answer_us, calendar.draw.calls],
    ]


def calendar_of(document: list[Any]) -> Calendar:
    """The calendar that ``calendar_document`` described."""
    schedule, grace_us, from_us, until_us, leaves, raw, draw = document
    return Calendar(
        Schedule(*schedule),
        grace_us,
        from_us,
        until_us,
        tuple((a, b) for a, b in leaves),
        raw,
        None if draw is None else Draw(*draw),
    )
