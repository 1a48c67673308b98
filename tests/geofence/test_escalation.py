"""Contacts and escalation in rules.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from geofence import RuleError, Ruleset
from geofence.escalation import Step

MINUTE_US = 60_000_000
GOOD = """
[[rules]]
id = "strap"
subjects = ["all"]
require = "strap_closed"

[[contacts]]
id = "desk"
email = ["desk@example.org"]

[[contacts]]
id = "chief"
webhooks = ["pager"]

[[escalation]]
severities = ["critical"]
steps = [{ contact = "desk" }, { contact = "chief", after = "5 min" }]

[[escalation]]
rules = ["strap"]
steps = [{ contact = "chief", after = "1 h" }]
"""


def load(directory: Path, text: str) -> Ruleset:
    (directory / "rules.toml").write_text(text)
    return Ruleset.load(directory)


def test_the_first_policy_that_fits_holds(tmp_path):
    policy = load(tmp_path, GOOD).escalation
    assert policy.steps_for("strap", "critical") == (Step("desk", 0), Step("chief", 5 * MINUTE_US))
    assert policy.steps_for("strap", "low") == (Step("chief", 60 * MINUTE_US),)
    assert policy.steps_for("strap.warning", "low") == ()
    assert policy.contacts["chief"].webhooks == ("pager",)


def test_it_is_stored_with_the_rules(tmp_path):
    rules = load(tmp_path, GOOD)
    again = Ruleset.from_document(rules.document)
    assert again.escalation == rules.escalation
    assert again.digest == rules.digest
    assert load(tmp_path, GOOD.replace("5 min", "6 min")).digest != rules.digest


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        (
            'contact = "desk" }',
            'contact = "dusk" }',
            r'toml:17: .*contact: no contact is called "dusk"',
        ),
        ('after = "5 min"', 'after = "0 min"', r"after: it is not later than the step before"),
        ('after = "5 min"', 'after = "soon"', r"after: 'soon' is no length of time"),
        ('after = "5 min"', 'at = "5 min"', r"at: there is no such key"),
        ('"critical"]', '"dire"]', r'rules.toml:16: .*severities: "dire" is not known'),
        ('rules = ["strap"]', 'rules = ["strip"]', r'rules.toml:20: .*rules: no rule is called "strip"'),
        ('"desk@example.org"', '"desk"', r'rules.toml:9: .*email: "desk" is no mail address'),
        ('email = ["desk@example.org"]', "", r"contacts\[0\].email: the contact can't be reached"),
        ('id = "chief"', 'id = "desk"', r'id: "desk" is the id of another contact'),
        ('steps = [{ contact = "chief", after = "1 h" }]', "", r"escalation\[1\].steps: there is none"),
        ("[[escalation]]\nseverities", "[escalation]\nseverities", r"rules.toml"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, good, bad, told):
    assert good in GOOD
    with pytest.raises(RuleError, match=told):
        load(tmp_path, GOOD.replace(good, bad, 1))
