"""Reading rules: what is accepted, and what each error says."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofence import RuleError, Ruleset, ZoneError, from_rfc3339
from geofence.schema import duration_us
from geofence.toml_lines import key_lines
from tests.geofence.engine_worlds import ZONES

DOCS = Path(__file__).parents[2] / "docs" / "rules.md"


def load(tmp_path, text, zones=ZONES):
    (tmp_path / "zones").mkdir(exist_ok=True)
    (tmp_path / "zones" / "all.geojson").write_text(json.dumps(zones))
    (tmp_path / "rules.toml").write_text(text)
    return Ruleset.load(tmp_path)


def doc_zones():
    names = [("home-a17", "homes"), ("river", "rivers"), ("school-1", "schools"), ("school-2", "schools")]
    return {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {"id": zone_id, "layer": layer, "radius_m": 100},
                "geometry": {"type": "Point", "coordinates": [-80.8 + k / 100, 35.2]},
            }
            for k, (zone_id, layer) in enumerate(names)
        ],
    }


def test_the_examples_of_the_documentation_load(tmp_path):
    text = "\n".join(re.findall(r"```toml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL))
    rules = load(tmp_path, text, doc_zones())
    assert rules.rule_ids[:3] == ["home-curfew-a17", "schools", "schools.warning"]
    assert rules.rules[0].grace_us == 300_000_000
    assert rules.rules[1].profile.confidence == 0.93
    assert rules.rules[1].profile.dwell_us == 30_000_000
    assert rules.roster["a17"].key == bytes(range(32))
    assert rules.leaves[0].granted_by == "Judge K."


def test_every_key_of_the_schema_is_documented():
    text = DOCS.read_text("utf-8")
    package = Path(__file__).parents[2] / "geofence"
    source = "".join((package / f"{name}.py").read_text("utf-8") for name in ("rule_reader", "profiles"))
    keys = set(
        re.findall(r"table\.(?:text|texts|choice|flag|number|duration|time|raw)\(\s*\"(\w+)\"", source)
    )
    assert len(keys) > 25
    assert {key for key in keys if f"`{key}`" not in text and f".{key}`" not in text} == set()


def test_a_stored_document_loads_again_equal(tmp_path):
    text = "\n".join(re.findall(r"```toml\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL))
    rules = load(tmp_path, text, doc_zones())
    again = Ruleset.from_document(json.loads(json.dumps(rules.document)))
    assert again.digest == rules.digest
    assert again.document == rules.document
    assert again.rules == rules.rules
    assert again.roster == rules.roster


def test_a_changed_rule_changes_the_digest(tmp_path):
    rule = '[[rules]]\nid = "r"\nsubjects = ["all"]\nrequire = "strap_closed"\nseverity = "{}"\n'
    assert load(tmp_path, rule.format("low")).digest != load(tmp_path, rule.format("high")).digest


CALLS = '[[rules]]\nid = "r"\nsubjects = ["all"]\nrequire = "check_in"\nwhen = "10:00-12:00"\n'
GOOD = '[[rules]]\nid = "r"\nsubjects = ["all"]\n'


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('timezone = "Mars/Base"\n', 1, "is no time zone"),
        ('\ncountry = "XX"\n', 2, "ISO code"),
        (GOOD + 'require = "insde"\nzones = ["home"]\n', 4, 'did you mean "inside"'),
        (GOOD + 'require = "inside"\nzone = ["home"]\n', 5, 'did you mean "zones"'),
        (GOOD + 'require = "inside"\nzones = ["hme"]\n', 5, 'did you mean "home"'),
        (GOOD + 'require = "inside"\nlayer = "scools"\n', 5, "the layers are: schools"),
        (GOOD + 'require = "inside"\n', 1, "needs `zones` or `layer`"),
        (GOOD + 'require = "strap_closed"\nseverity = 3\n', 5, "is not a text"),
        (GOOD + 'require = "contact"\nwithin = "soon"\n', 5, "5 min"),
        (GOOD + 'require = "battery"\nabove_pct = 200\n', 5, "1 to 100"),
        (GOOD + 'require = "inside"\nzones = ["home"]\nwhen = "20:00-0x:00"\n', 6, "opening_hours"),
        (GOOD + 'require = "strap_closed"\nfrom = "yesterday"\n', 5, "2026-11-24T08:00:00Z"),
        (GOOD + 'require = "check_in"\n', 1, "windows"),
        (CALLS + 'answer_within = "10 min"\n', 6, 'write call_key = "'),
        (CALLS + "calls = 2\n", 6, "answer_within"),
        (CALLS + 'answer_within = "10 min"\ncalls = 2.5\n', 7, "whole number"),
        ('call_key = "c2hvcnQ="\n', 1, "5 bytes"),
        (GOOD + 'require = "strap_closed"\nabove_pct = 3\n', 5, "no such key"),
        (GOOD + 'require = "strap_closed"\n' + GOOD + 'require = "strap_closed"\n', 6, "another rule"),
        ('[[rules]]\nsubjects = ["everyone"]\nid = "r"\nrequire = "strap_closed"\n', 2, '"device:ID"'),
        ("[profiles.standard]\nconfidence = 0.5\n", 2, "0.9 to 0.997"),
        ('[[devices]]\nid = "a b"\n', 2, "is no device id"),
        ('[[devices]]\nid = "a"\nkey = "AAAA"\n', 3, "holds 3 bytes"),
        (
            '[[leaves]]\nsubjects = ["all"]\nfrom = 2026-01-02\nuntil = 2026-01-01\ngranted_by = "J"\n',
            4,
            "not after",
        ),
        (GOOD + 'require = "fix"\nfrom = 2026-01-02\nuntil = 2026-01-02\n', 6, "not after"),
        (GOOD + 'require = "fix"\ndescription = 07:00:00\n', 5, "is not a text"),
        (GOOD + 'require = "fix"\ndescription = nan\n', 5, "is not a text"),
        (GOOD + 'require = "fix"\ndescription = "a\\u0000b"\n', 5, "NUL"),
        ('[[rules]]\nsubjects = []\nid = "r"\nrequire = "fix"\n', 2, "binds nobody"),
        ('[rule]\nid = "x"\n', 1, 'did you mean "rules"'),
        ("rules = 3\n", 1, "[[rules]]"),
    ],
)
def test_an_error_names_file_line_key_and_remedy(tmp_path, text, line, says):
    with pytest.raises(RuleError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert f"rules.toml:{line}:" in message
    assert says in message


def test_every_problem_is_told_at_once(tmp_path):
    with pytest.raises(RuleError) as caught:
        load(tmp_path, GOOD + 'require = "battery"\nabove_pct = 0\ngrce = "1 s"\nseverity = "hi"\n')
    assert len(caught.value.problems) == 3


def test_broken_toml_and_missing_files_say_so(tmp_path):
    with pytest.raises(RuleError, match="no such file"):
        Ruleset.load(tmp_path)
    with pytest.raises(RuleError, match="line 1"):
        load(tmp_path, "a = \n")


def test_a_byte_order_mark_is_no_error(tmp_path):
    assert load(tmp_path, "\ufeff" + GOOD + 'require = "fix"\n').rule_ids == ["r"]


def test_holidays_of_no_country_are_warned_of(tmp_path):
    rule = GOOD + 'require = "fix"\nwhen = "Mo-Fr 08:00-16:00; PH off"\n'
    (warning,) = load(tmp_path, rule).warnings
    assert "`country`" in warning
    assert not load(tmp_path, 'country = "US"\n' + rule).warnings


def test_a_roster_says_who_is_judged_and_by_which_subjects(tmp_path):
    key = base64.b64encode(bytes(32)).decode()
    rules = load(
        tmp_path,
        f'[groups]\nx = ["participant:p1"]\n[[devices]]\nid = "a"\nparticipant = "p1"\ngroups = ["g"]\n'
        f'from = 2026-01-01T00:00:00Z\nuntil = 2026-02-01T00:00:00Z\nkey = "{key}"\n',
    )
    inside, after = from_rfc3339("2026-01-15T00:00:00Z"), from_rfc3339("2026-02-01T00:00:00Z")
    assert rules.enrolled("a", inside)
    assert not rules.enrolled("a", after)
    assert not rules.enrolled("b", inside)
    assert rules.key("a") == bytes(32)
    assert rules.key("b") is None
    assert rules.subjects_of("a") == {"all", "device:a", "participant:p1", "group:g", "group:x"}


def test_local_moments_follow_the_time_zone(tmp_path):
    rules = load(
        tmp_path,
        'timezone = "America/New_York"\n' + GOOD + 'require = "strap_closed"\nfrom = 2026-07-01T00:00:00\n',
    )
    assert rules.rules[0].from_us == from_rfc3339("2026-07-01T04:00:00Z")


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_lengths_of_time_add_up(hours, minutes, seconds):
    assert (
        duration_us(f"{hours} h {minutes}min {seconds} s")
        == ((hours * 60 + minutes) * 60 + seconds) * 1_000_000
    )


@pytest.mark.parametrize("text", ["", "5", "min", "5 m", "-5 s", "5 min later", "400 d"])
def test_what_is_no_length_of_time(text):
    with pytest.raises(ValueError, match="no length of time"):
        duration_us(text)


def test_lines_are_found_past_arrays_strings_and_comments():
    text = (
        "# [[rules]]\na = [\n  1, # ]\n  2,\n]\n"
        'b = """\n[c]\nd = 1\n"""\n'
        '[[rules]]\nid = \'x\' # [y]\n[[rules]]\n"id" = "[z"\n[p.q]\nr.s = 1\n'
    )
    lines = key_lines(text)
    assert lines["a",] == 2
    assert lines["b",] == 6
    assert ("c",) not in lines
    assert lines["rules", 0, "id"] == 11
    assert lines["rules", 1, "id"] == 13
    assert lines["p", "q", "r", "s"] == 15


def test_bad_zones_do_not_hide_bad_rules(tmp_path):
    (tmp_path / "zones").mkdir()
    point = {
        "type": "Feature",
        "properties": {"id": "home"},
        "geometry": {"type": "Point", "coordinates": [0, 0]},
    }
    (tmp_path / "zones" / "z.geojson").write_text(json.dumps(point))
    rules = tmp_path / "rules.toml"
    good = '[[rules]]\nid = "r"\nsubjects = ["all"]\nrequire = "inside"\nzones = ["home"]\n'
    rules.write_text(good)
    with pytest.raises(ZoneError, match="home"):  # the rule names a zone that is there, if a bad one
        Ruleset.load(tmp_path)
    rules.write_text(good + 'severity = "hi"\n')
    with pytest.raises(RuleError) as raised:
        Ruleset.load(tmp_path)
    assert len(raised.value.problems) == len(raised.value.paths) == 2
    assert raised.value.problems[0].startswith('zone "home"')
    assert "rules.toml:6: rules[0].severity" in raised.value.problems[1]
