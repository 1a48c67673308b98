"""Who is asked next when nobody takes an alert up. The engine decides nothing by it; it is part of the rules
so that it is checked, numbered and kept with them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from geofence.records import SEVERITIES
from geofence.schema import MISSING

if TYPE_CHECKING:
    from geofence.schema import Table

__all__ = ["Contact", "EscalationPolicy", "Step", "read_escalation"]

_ADDRESS: Final = re.compile(r"[^@\s,;<>\"]+@[^@\s,;<>\"]+")
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody who can be asked. webhooks: names of ``[[webhooks]]`` in the settings file."""

    id: str
    email: tuple[str, ...]
    webhooks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """Ask ``contact`` when the alert is still open ``after_us`` after it was raised or reopened."""

    contact: str
    after_us: int


@dataclass(frozen=True, slots=True)
class _Policy:
    severities: frozenset[str]
    rules: frozenset[str]  # empty: every rule
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class EscalationPolicy:
    """Every ``[[escalation]]``, in the order of the file; the first that fits an alert holds.

    >>> EscalationPolicy().steps_for("keep-away", "critical")
    ()
    """

    contacts: dict[str, Contact] = field(default_factory=dict)
    policies: tuple[_Policy, ...] = ()

    def steps_for(self, rule_id: str, severity: str) -> tuple[Step, ...]:
        """The steps for an alert of this rule and severity, by time."""
        for policy in self.policies:
            if severity in policy.severities and (not policy.rules or rule_id in policy.rules):
                return policy.steps
        return ()


def read_escalation(top: Table, rule_ids: frozenset[str]) -> EscalationPolicy:
    """``[[contacts]]`` and ``[[escalation]]`` of rules.toml; problems are noted.

    rule_ids : the rules that there are
    """
    contacts: dict[str, Contact] = {}
    for table in top.tables("contacts"):
        contact = _contact(table)
        table.close()
        if contact.id in contacts:
            table.problem("id", f'"{contact.id}" is the id of another contact; ids must differ')
        contacts[contact.id] = contact
    policies = []
    for table in top.tables("escalation"):
        policies.append(_policy(table, contacts, rule_ids))
        table.close()
    return EscalationPolicy(contacts, tuple(policies))


def _contact(table: Table) -> Contact:
    contact_id = table.text("id", MISSING) or ""
    if contact_id and not _NAME.fullmatch(contact_id):
        table.problem("id", f'"{contact_id}" is no contact id; use 1 to 64 of A-Z a-z 0-9 _ -')
    email, webhooks = table.texts("email"), table.texts("webhooks")
    for address in email:
        if not _ADDRESS.fullmatch(address):
            table.problem("email", f'"{address}" is no mail address; write it as name@example.org')
    for name in webhooks:
        if not _NAME.fullmatch(name):
            table.problem("webhooks", f'"{name}" is no webhook\'s name; see `name` in the settings file')
    if not email and not webhooks:
        table.problem("email", "the contact can't be reached; give `email`, `webhooks` or both")
    return Contact(contact_id, email, webhooks)


def _policy(table: Table, contacts: dict[str, Contact], rule_ids: frozenset[str]) -> _Policy:
    severities = table.texts("severities", SEVERITIES)
    for severity in severities:
        if severity not in SEVERITIES:
            table.problem("severities", f'"{severity}" is not known; there are: {", ".join(SEVERITIES)}')
    rules = table.texts("rules")
    for rule_id in rules:
        if rule_id not in rule_ids:
            table.problem("rules", f'no rule is called "{rule_id}"; correct its spelling or leave it out')
    steps: list[Step] = []
    for item in table.tables("steps"):
        contact = item.text("contact", MISSING) or ""
        if contact and contact not in contacts:
            known = ", ".join(contacts) or "none"
            item.problem("contact", f'no contact is called "{contact}"; there are: {known}')
        step = Step(contact, item.duration("after", 0))
        item.close()
        if steps and step.after_us <= steps[-1].after_us:
            item.problem(
                "after", "it is not later than the step before; times count from the alert's beginning"
            )
        steps.append(step)
    if not steps:
        table.problem(
            "steps", 'there is none; write steps = [{ contact = "…" }, { contact = "…", after = "5 min" }]'
        )
    return _Policy(frozenset(severities), frozenset(rules), tuple(steps))
