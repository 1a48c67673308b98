"""Reads the tables of rules.toml into a rule set, noting every problem rather than stopping at the first."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from geofence.escalation import read_escalation
from geofence.profiles import read_profiles
from geofence.records import SEVERITIES
from geofence.roster import DEVICE_KINDS, Enrolled
from geofence.rules import CONDITIONS, ZONE_REQUIREMENTS, Leave, Rule
from geofence.schedule import Schedule
from geofence.schema import MISSING, Problems, Table
from geofence.units import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geofence.ruleset import Ruleset

__all__ = ["read_rules"]

MAX_INSIDE_ZONES: Final = 4096  # an `inside` rule measures each of its zones for each ping
_DEVICE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MINUTE_US: Final = 60_000_000
_WITHIN_DEFAULT_US: Final = {"contact": 15 * _MINUTE_US, "fix": 15 * _MINUTE_US, "clock": 2 * _MINUTE_US}


def read_rules(
    target: Ruleset, rules: dict[str, Any], problems: Problems, *, zones_known: bool = True
) -> None:
    """Fill in what the tables say.

    zones_known : False when the zones themselves could not be read, so that no rule can be held to name one
    """
    _Reader(target, rules, problems, zones_known).read()


class _Reader:
    """Reads the tables into ``target``, noting every problem rather than stopping at the first."""

    def __init__(self, target: Ruleset, rules: dict[str, Any], problems: Problems, zones_known: bool) -> None:
        self.target = target
        self.problems = problems
        self.top = Table(rules, (), problems)
        self.zones_known = zones_known
        self.zone_index = {zone_id: i for i, zone_id in enumerate(target.zones.ids)}

    def read(self) -> None:
        top, target = self.top, self.target
        target.timezone = top.text("timezone", "UTC")
        target.country = top.text("country", None)
        for key, schedule in (
            ("timezone", Schedule(None, target.timezone, None)),
            ("country", Schedule("24/7", "UTC", target.country)),
        ):
            try:
                schedule.check()
            except ValueError as exc:
                top.problem(key, str(exc))
                target.timezone, target.country = "UTC", None
        self.profiles = read_profiles(top)
        self.call_key = _secret(top, "call_key", 16)
        target.roster = self._roster()
        target.groups = self._groups()
        target.call_key = self.call_key
        target.rules = list(self._rules())
        target.leaves = list(self._leaves())
        target.escalation = read_escalation(top, frozenset(target.rule_ids))
        top.close()

    def _roster(self) -> dict[str, Enrolled] | None:
        if "devices" not in self.top.data:
            return None
        roster: dict[str, Enrolled] = {}
        for table in self.top.tables("devices"):
            entry = self._device(table)
            table.close()
            if entry.device_id in roster:
                table.problem("id", f'"{entry.device_id}" stands twice in the roster; remove one')
            roster[entry.device_id] = entry
        return roster

    def _device(self, table: Table) -> Enrolled:
        device_id = table.text("id", MISSING) or ""
        if device_id and not _DEVICE_ID.fullmatch(device_id):
            table.problem("id", f'"{device_id}" is no device id; use 1 to 64 of A-Z a-z 0-9 _ -')
        key = _secret(table, "key", 32, exact=True)
        layers = table.texts("layers", None)
        for layer in layers or ():
            self._known_layer(table, "layers", layer)
        from_us = table.time("from", self.target.timezone)
        until_us = table.time("until", self.target.timezone)
        if NO_TIME not in {from_us, until_us} and until_us <= from_us:
            table.problem("until", "it is not after `from`")
        return Enrolled(
            device_id,
            table.choice("kind", DEVICE_KINDS, "ankle"),
            table.text("participant", None),
            table.texts("groups"),
            layers,
            from_us,
            until_us,
            key,
        )

    def _groups(self) -> dict[str, tuple[str, ...]]:
        table = self.top.table("groups")
        groups = {name: table.texts(name) for name in table.data}
        for name, members in groups.items():
            for member in members:
                if not member.startswith(("device:", "participant:")):
                    table.problem(name, f'"{member}" is no member; write "device:ID" or "participant:ID"')
        return groups

    def _rules(self) -> Iterable[Rule]:
        taken: set[str] = set()
        for table in self.top.tables("rules"):
            rule, warn_mm = self._rule(table)
            table.close()
            made = [rule]
            if warn_mm:
                made.append(
                    replace(
                        rule,
                        id=f"{rule.id}.warning",
                        severity=min(rule.severity, SEVERITIES.index("low")),
                        offset_mm=warn_mm,
                        crossing=False,
                        warns=True,
                    )
                )
            for each in made:
                if each.id in taken:
                    table.problem("id", f'"{each.id}" is the id of another rule; ids must differ')
                taken.add(each.id)
                yield each

    def _rule(self, table: Table) -> tuple[Rule, int]:
        rule_id = table.text("id", MISSING) or ""
        require = table.choice("require", (*ZONE_REQUIREMENTS, *CONDITIONS), MISSING) or "none"
        table.text("description", "")
        subjects = table.texts("subjects", MISSING)
        self._check_subjects(table, subjects)
        from_us = table.time("from", self.target.timezone)
        until_us = table.time("until", self.target.timezone)
        if NO_TIME not in {from_us, until_us} and until_us <= from_us:
            table.problem("until", "it is not after `from`")
        schedule = Schedule(table.text("when", None), self.target.timezone, self.target.country)
        try:
            schedule.check()
        except ValueError as exc:
            table.problem("when", str(exc))
            schedule = replace(schedule, when=None)
        if schedule.asks_for_holidays and self.target.country is None:
            self.target.warnings.append(
                f'rule "{rule_id}": `when` names public holidays (PH), but no `country` says whose'
            )
        profile = self.profiles[table.choice("profile", self.profiles, "standard")]
        about_zones = require in ZONE_REQUIREMENTS
        within_us = _WITHIN_DEFAULT_US.get(require, 0)
        dwell_us = table.duration("dwell", profile.dwell_us if about_zones else 0)
        zones, layer = self._zones(table, require) if about_zones else ((), None)
        rule = Rule(
            id=rule_id,
            subjects=subjects,
            require=require,
            zones=zones,
            layer=layer,
            schedule=schedule,
            from_us=from_us,
            until_us=until_us,
            severity=SEVERITIES.index(table.choice("severity", SEVERITIES, "high")),
            grace_us=table.duration("grace", 0),
            profile=replace(profile, dwell_us=dwell_us),
            crossing=table.flag("crossing") if require == "outside" else False,
            beacon=table.flag("beacon") if require == "inside" else False,
            above_pct=table.number("above_pct", 20, 1, 100) if require == "battery" else 0,
            within_us=table.duration("within", within_us) if within_us else 0,
            methods=table.texts("methods") if require == "check_in" else (),
            answer_us=table.duration("answer_within", 0) if require == "check_in" else 0,
            calls=_calls(table) if require == "check_in" else 1,
        )
        self._check_calls(table, rule)
        if rule.beacon and len(zones) != 1 and self.zones_known:
            table.problem("beacon", "a beacon stands in one zone; name just that one in `zones`")
        warn_m = table.number("warn_m", 0, 0, 10_000) if require in {"inside", "outside"} else 0
        return rule, round(warn_m * 1000)

    def _check_calls(self, table: Table, rule: Rule) -> None:
        """What a check_in rule needs besides."""
        if rule.require != "check_in":
            return
        if rule.schedule.when is None:
            table.problem("when", "a check_in rule needs the windows in which a check-in is expected")
        for method in rule.methods:
            if method not in {"voice", "face", "button"}:
                table.problem("methods", f'"{method}" is not known; there are: voice, face, button')
        if rule.calls > 1 and not rule.answer_us:
            table.problem("calls", "none is drawn without `answer_within`; say how long each may be answered")
        if rule.answer_us and self.call_key is None:
            table.problem(
                "answer_within",
                'times are drawn with a secret, so that nobody can work them out: write call_key = "…" at '
                "the top of the file, 16 or more random bytes in base64",
            )

    def _zones(self, table: Table, require: str) -> tuple[tuple[int, ...], str | None]:
        names = table.texts("zones")
        layer = table.text("layer", None)
        indices: set[int] = set()
        for name in names:
            if name in self.zone_index:
                indices.add(self.zone_index[name])
            elif self.zones_known:
                table.problem(
                    "zones", f'there is no zone "{name}" in zones/*.geojson; {self._near_zone(name)}'
                )
        if layer is not None and self._known_layer(table, "layer", layer):
            indices.update(self.target.zones.layers[layer].tolist())
        if not names and layer is None:
            self.problems.add(table.path, f'a rule that requires "{require}" needs `zones` or `layer`')
        if require == "inside" and len(indices) > MAX_INSIDE_ZONES:
            table.problem(
                "zones", f"an inside rule takes at most {MAX_INSIDE_ZONES} zones, not {len(indices)}"
            )
        return tuple(sorted(indices)), layer

    def _near_zone(self, name: str) -> str:
        import difflib  # noqa: PLC0415 - only for an error

        near = difflib.get_close_matches(name, self.zone_index, 1)
        return f'did you mean "{near[0]}"?' if near else "add it, or name another"

    def _known_layer(self, table: Table, key: str, layer: str) -> bool:
        if layer in self.target.zones.layers:
            return True
        if not self.zones_known:
            return False
        known = ", ".join(sorted(self.target.zones.layers)) or "none"
        table.problem(key, f'no zone is in a layer "{layer}"; the layers are: {known}')
        return False

    def _check_subjects(self, table: Table, subjects: tuple[str, ...]) -> None:
        roster, groups = self.target.roster, self.target.groups
        if not subjects and table.data.get("subjects") == []:
            table.problem("subjects", 'the list is empty and binds nobody; name someone, or "all"')
        for subject in subjects:
            kind, _, name = subject.partition(":")
            if subject == "all":
                continue
            if kind not in {"device", "participant", "group"} or not name:
                table.problem(
                    "subjects",
                    f'"{subject}" is no subject; write "device:ID", "participant:ID", "group:NAME" or "all"',
                )
            elif kind == "group":
                in_roster = roster is not None and any(name in entry.groups for entry in roster.values())
                if name not in groups and not in_roster:
                    self.target.warnings.append(
                        f'group "{name}" has no members; the rule binds nobody through it'
                    )
            elif kind == "participant" and (
                roster is None or all(entry.participant != name for entry in roster.values())
            ):
                self.target.warnings.append(f'participant "{name}" has no device in the roster')
            elif kind == "device" and roster is not None and name not in roster:
                self.target.warnings.append(
                    f'device "{name}" of a rule is not in the roster; it is not judged'
                )

    def _leaves(self) -> Iterable[Leave]:
        rule_ids = set(self.target.rule_ids)
        for table in self.top.tables("leaves"):
            subjects = table.texts("subjects", MISSING)
            self._check_subjects(table, subjects)
            rules = table.texts("rules")
            for rule_id in rules:
                if rule_id not in rule_ids:
                    table.problem("rules", f'there is no rule "{rule_id}"')
            from_us = table.time("from", self.target.timezone, MISSING)
            until_us = table.time("until", self.target.timezone, MISSING)
            if NO_TIME not in {from_us, until_us} and until_us <= from_us:
                table.problem("until", "it is not after `from`")
            leave = Leave(
                subjects,
                rules,
                from_us,
                until_us,
                table.text("granted_by", MISSING) or "",
                table.text("reason", ""),
            )
            table.close()
            yield leave


def _calls(table: Table) -> int:
    calls = table.number("calls", 1, 1, 24)
    if not isinstance(calls, int):
        table.problem("calls", f"{calls!r} is not a whole number")
        return 1
    return calls


def _secret(table: Table, key: str, n_bytes: int, *, exact: bool = False) -> bytes | None:
    """Random bytes in base64; None where the key is left out."""
    text = table.text(key, None)
    if text is None:
        return None
    try:
        secret = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != n_bytes if exact else not n_bytes <= len(secret) <= 64:
        wanted = f"{n_bytes}" if exact else f"{n_bytes} to 64"
        table.problem(key, f"it holds {len(secret)} bytes; it must be {wanted} bytes in base64")
    return secret
