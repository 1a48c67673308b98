"""Rules as people write them: zones/*.geojson and rules.toml, read, checked and numbered."""

from __future__ import annotations

import hashlib
import json
import tomllib
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from geofence.errors import RuleError, ZoneError
from geofence.roster import Enrolled
from geofence.rule_reader import read_rules
from geofence.rules import CONDITIONS, Leave, Rule
from geofence.schedule import data_versions
from geofence.schema import Problems
from geofence.toml_lines import key_lines
from geofence.zoneset import ZoneSet

if TYPE_CHECKING:
    from geofence.escalation import EscalationPolicy

__all__ = ["CONDITIONS", "Enrolled", "Leave", "Rule", "Ruleset"]

_NO_ZONES: Final[dict[str, Any]] = {"type": "FeatureCollection", "features": []}


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
        read_rules(self, rules, problems)
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
    call_key: bytes | None
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
        problems = Problems(str(file), key_lines(text))
        try:
            zones = ZoneSet.from_geojson(zones_dir if found else _NO_ZONES)
        except ZoneError as exc:
            _also_wrong(cls.__new__(cls), rules, problems, exc)
            raise
        return cls(zones, rules, data_versions(), problems)

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


def _also_wrong(blank: Ruleset, rules: dict[str, Any], problems: Problems, zones: ZoneError) -> None:
    """Raise a RuleError that names the bad zones and the bad rules, if there are bad rules too."""
    blank.zones, blank.warnings = ZoneSet.from_geojson(_NO_ZONES), []
    read_rules(blank, rules, problems, zones_known=False)
    if problems.found:
        bad_zones = str(zones).split("\n")
        raise RuleError([*bad_zones, *problems.found], [*[()] * len(bad_zones), *problems.paths]) from zones
