"""Rules as people write them: zones/*.geojson and rules.toml, read, checked and numbered."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import tomllib
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from geofence.errors import RuleError
from geofence.escalation import EscalationPolicy, read_escalation
from geofence.profiles import BUILT_IN, CONFIDENCE_RANGE, Profile
from geofence.records import SEVERITIES
from geofence.roster import DEVICE_KINDS, Enrolled
from geofence.schedule import ALWAYS_FROM, ALWAYS_UNTIL, Calendar, Schedule, data_versions
from geofence.schema import MISSING, Problems, Table
from geofence.toml_lines import key_lines
from geofence.units import NO_TIME
from geofence.zoneset import ZoneSet

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CONDITIONS", "Enrolled", "Leave", "Rule", "Ruleset"]

ZONE_REQUIREMENTS: Final = ("none", "inside", "outside")
CONDITIONS: Final = (
    "strap_closed",
    "case_closed",
    "battery",
    "contact",
    "fix",
    "no_jamming",
    "plausible_movement",
    "check_in",
)
MAX_INSIDE_ZONES: Final = 4096  # an `inside` rule measures each of its zones for each ping
_DEVICE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_WITHIN_DEFAULT_US: Final = 15 * 60 * 1_000_000
_MAX_ZONE_M: Final = 100_000


@dataclass(frozen=True, slots=True)
class Leave:
    """A dated permission that suspends rules (a hospital visit), with who granted it.

    rules : ids; empty: every rule of the subjects
    """

    subjects: tuple[str, ...]
    rules: tuple[str, ...]
    from_us: int
    until_us: int
    granted_by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, with everything looked up that its text names.

    zones     : indices into ``Ruleset.zones.ids``, ascending; of an `outside` rule all, of an `inside` any
    offset_mm : the line lies so far before the zone's edge (a warning), on the lawful side
    warns     : this rule was made by another one's ``warn_m``
    """

    id: str
    subjects: tuple[str, ...]
    require: str
    zones: tuple[int, ...]
    layer: str | None
    schedule: Schedule
    from_us: int
    until_us: int
    severity: int
    grace_us: int
    profile: Profile
    crossing: bool = False
    beacon: bool = False
    offset_mm: int = 0
    warns: bool = False
    above_pct: int = 0
    within_us: int = 0
    methods: tuple[str, ...] = ()

    @property
    def about_zones(self) -> bool:
        """Whether it is about where the wearer is; else it is about the device."""
        return self.require in ZONE_REQUIREMENTS

    def calendar(self, leaves: tuple[tuple[int, int], ...] = (), effective_us: int = NO_TIME) -> Calendar:
        """When the rule is in force, less these leaves, from the time it took effect."""
        start = ALWAYS_FROM if self.from_us == NO_TIME else self.from_us
        return Calendar(
            self.schedule,
            self.grace_us if self.require != "check_in" else 0,
            max(start, ALWAYS_FROM if effective_us == NO_TIME else effective_us),
            ALWAYS_UNTIL if self.until_us == NO_TIME else self.until_us,
            leaves,
            raw=self.require == "check_in",
        )


class Ruleset:
    """Zones, rules and roster; immutable. ``warnings`` says what is odd but was accepted.

    >>> rules = Ruleset.from_document({"zones": {"type": "FeatureCollection", "features": []}, "rules": {}})
    >>> rules.rule_ids, rules.roster is None, rules.enrolled("a17", 0)
    ([], True, True)
    """

    def __init__(
        self, zones: ZoneSet, rules: dict[str, Any], versions: dict[str, str], problems: Problems
    ) -> None:
        self.zones = zones
        self.warnings: list[str] = list(zones.warnings)
        self.document: dict[str, Any] = {
            "zones": zones.to_geojson(),
            "rules": _plain(rules),
            "data_versions": versions,
        }
        if versions != data_versions():
            self.warnings.append(
                f"these rules were stored with time zone and holiday data of {versions}; here are "
                f"{data_versions()}: schedules may differ"
            )
        _Reader(self, rules, problems).read()
        if problems.found:
            raise RuleError(problems.found, problems.paths)
        text = json.dumps(self.document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        self.digest: str = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    timezone: str
    country: str | None
    rules: list[Rule]
    roster: dict[str, Enrolled] | None
    groups: dict[str, tuple[str, ...]]
    leaves: list[Leave]
    escalation: EscalationPolicy

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Read ``zones/*.geojson`` and ``rules.toml``; RuleError and ZoneError say what is wrong where."""
        root = Path(directory)
        file = root / "rules.toml"
        try:
            text = file.read_text("utf-8-sig")  # some editors begin a file with a byte order mark
        except FileNotFoundError as exc:
            raise RuleError(
                [f"{file}: there is no such file; a rules directory holds rules.toml and zones/*.geojson"]
            ) from exc
        except (OSError, UnicodeDecodeError) as exc:
            raise RuleError([f"{file}: can't be read: {exc}"]) from exc
        try:
            rules = tomllib.loads(text)
        except tomllib.TOMLDecodeError as exc:
            raise RuleError([f"{file}: {exc}"]) from exc
        zones_dir = root / "zones"
        found = zones_dir.is_dir() and any(zones_dir.glob("*.geojson"))
        zones = ZoneSet.from_geojson(zones_dir if found else {"type": "FeatureCollection", "features": []})
        return cls(zones, rules, data_versions(), Problems(str(file), key_lines(text)))

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """The rules of a stored ``document``, equal to those it was taken from."""
        try:
            zones, rules = document["zones"], document["rules"]
        except (KeyError, TypeError) as exc:
            raise RuleError(['rules document: the keys "zones" and "rules" are needed']) from exc
        versions = document.get("data_versions") or data_versions()
        return cls(ZoneSet.from_geojson(zones), rules, dict(versions), Problems("rules document"))

    @property
    def rule_ids(self) -> list[str]:
        """The ids, in the order of ``rules``."""
        return [rule.id for rule in self.rules]

    def enrolled(self, device_id: str, time_us: int) -> bool:
        """Whether this device is judged at this time; without a roster every device is."""
        if self.roster is None:
            return True
        entry = self.roster.get(device_id)
        return entry is not None and entry.covers(time_us)

    def key(self, device_id: str) -> bytes | None:
        """The device's key for message tags, where the roster has one."""
        entry = self.roster.get(device_id) if self.roster is not None else None
        return entry.key if entry is not None else None

    def subjects_of(self, device_id: str) -> frozenset[str]:
        """Every subject by which a rule can mean this device."""
        entry = self.roster.get(device_id) if self.roster is not None else None
        names = {"all", f"device:{device_id}"}
        if entry is not None:
            if entry.participant is not None:
                names.add(f"participant:{entry.participant}")
            names.update(f"group:{group}" for group in entry.groups)
        names.update(
            f"group:{group}" for group, members in self.groups.items() if names.intersection(members)
        )
        return frozenset(names)


def _plain(value: Any) -> Any:
    """TOML values as JSON values: dates become text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value


class _Reader:
    """Reads the tables into ``target``, noting every problem rather than stopping at the first."""

    def __init__(self, target: Ruleset, rules: dict[str, Any], problems: Problems) -> None:
        self.target = target
        self.problems = problems
        self.top = Table(rules, (), problems)
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
        self.profiles = self._profiles()
        target.roster = self._roster()
        target.groups = self._groups()
        target.rules = list(self._rules())
        target.leaves = list(self._leaves())
        target.escalation = read_escalation(top, frozenset(target.rule_ids))
        top.close()

    def _profiles(self) -> dict[str, Profile]:
        profiles = dict(BUILT_IN)
        tables = self.top.table("profiles")
        for name in tables.data:
            table = tables.table(name)
            start = profiles.get(name, profiles["standard"])
            low, high = CONFIDENCE_RANGE
            profile = Profile(
                name=name,
                confidence=table.number("confidence", start.confidence, low, high),
                clear=table.number("clear", start.clear, 0.003, 0.5),
                dwell_us=table.duration("dwell", start.dwell_us),
                hysteresis_mm=round(
                    table.number("hysteresis_m", start.hysteresis_mm / 1000, 0, 10_000) * 1000
                ),
                cross_within_us=table.duration("cross_within", start.cross_within_us),
            )
            table.close()
            profiles[name] = profile
        return profiles

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
        key_text = table.text("key", None)
        key = None
        if key_text is not None:
            try:
                key = base64.b64decode(key_text, validate=True)
            except (binascii.Error, ValueError):
                key = b""
            if len(key) != 32:
                table.problem("key", f"it holds {len(key)} bytes; it must be 32 bytes in base64")
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
            within_us=table.duration("within", _WITHIN_DEFAULT_US) if require in {"contact", "fix"} else 0,
            methods=table.texts("methods") if require == "check_in" else (),
        )
        if rule.beacon and len(zones) != 1:
            table.problem("beacon", "a beacon stands in one zone; name just that one in `zones`")
        if require == "check_in" and schedule.when is None:
            table.problem("when", "a check_in rule needs the windows in which a check-in is expected")
        for method in rule.methods:
            if method not in {"voice", "face", "button"}:
                table.problem("methods", f'"{method}" is not known; there are: voice, face, button')
        warn_m = table.number("warn_m", 0, 0, 10_000) if require in {"inside", "outside"} else 0
        return rule, round(warn_m * 1000)

    def _zones(self, table: Table, require: str) -> tuple[tuple[int, ...], str | None]:
        names = table.texts("zones")
        layer = table.text("layer", None)
        indices: set[int] = set()
        for name in names:
            if name in self.zone_index:
                indices.add(self.zone_index[name])
            else:
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
