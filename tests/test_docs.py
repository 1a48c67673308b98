"""The pages hold: links lead somewhere, the first example works, and no setting or reason is left out."""

import csv
import io
import re
from pathlib import Path

import pytest

from geofence import Ruleset
from telemetry.check import check_file
from telemetry.config import Settings

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
MADE_AT_RELEASE = {"docs/images/terminal.svg"}


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_named_files_exist(page):
    text = page.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
    named = re.findall(r"`((?:docs|tests|tools|geofence|telemetry|firmware_sim|benchmarks)/[\w./-]+)`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    if page.name != "ROADMAP.md":  # it names what does not stand yet
        missing += [name for name in named if not (ROOT / name).exists()]
    assert set(missing) <= MADE_AT_RELEASE


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    for page in ROOT.glob("docs/**/*.md"):
        assert page.name == "README.md" or page.name in index


def test_the_readmes_example_alerts(tmp_path):
    rules = tmp_path / "rules"
    (rules / "zones").mkdir(parents=True)
    (zones,), (toml,) = blocks("README.md", "json"), blocks("README.md", "toml")
    (rules / "zones" / "homes.geojson").write_text(zones)
    (rules / "rules.toml").write_text(toml)
    line = re.search(r"printf '(device_id.*?)' > pings.csv", (ROOT / "README.md").read_text("utf-8"))
    assert line is not None
    text = line[1].replace("\\n", "\n")
    assert len(list(csv.DictReader(io.StringIO(text)))) == 1
    (tmp_path / "pings.csv").write_text(text)
    checked = check_file(rules, tmp_path / "pings.csv").document(transitions=False)
    assert [row["rule_id"] for row in checked["violations"]] == ["keep-away", "home-curfew"]


def test_the_zone_example_of_the_rules_page_loads(tmp_path):
    (tmp_path / "zones").mkdir()
    (example,) = blocks("docs/rules.md", "json")
    (tmp_path / "zones" / "all.geojson").write_text(example)
    (tmp_path / "rules.toml").write_text("")
    assert Ruleset.load(tmp_path).zones.ids == ["school-1", "home-a17", "river-walk"]


def test_every_setting_is_documented():
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert [name for name in Settings.model_fields if f"| `{name}` |" not in text] == []


def test_every_reason_for_quarantine_is_documented():
    text = (ROOT / "docs" / "wire-format.md").read_text("utf-8").split("## What is set aside")[1]
    source = "".join(path.read_text("utf-8") for path in ROOT.glob("telemetry/**/*.py"))
    used = set(re.findall(r"(?:Unreadable\(|reject\(\w+, |Reject\(\w+, |reason=)\"(\w+)\"", source))
    assert len(used) > 12
    assert [reason for reason in sorted(used) if f"`{reason}`" not in text] == []


def test_every_sentence_of_the_specification_has_a_worked_case():
    said = set(re.findall(r"- §(\d)\.(\d)", (ROOT / "docs" / "decisions.md").read_text("utf-8")))
    source = (ROOT / "tests" / "geofence" / "test_decisions.py").read_text("utf-8")
    shown = set(re.findall(r"(?:test|and)_(\d)_(\d)", source))
    chapters = set(re.findall(r"def test_(\d)_(?!\d)", source))  # one story for several sentences
    assert {"7", "8"} == chapters
    assert {sentence for sentence in said - shown if sentence[0] not in chapters} == set()
    assert shown <= said


def test_every_problem_of_the_api_is_documented():
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    source = "".join(path.read_text("utf-8") for path in ROOT.glob("telemetry/api/*.py"))
    kinds = set(re.findall(r"Problem\(\s*\d{3},\s*\"([\w-]+)\"", source)) | {"bad-request"}
    assert len(kinds) > 10
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in text] == []
