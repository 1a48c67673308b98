"""``ringfence check``: reading files, refusing rows as a live engine would, the shape of the answer."""

from __future__ import annotations

import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from geofence import RuleError
from telemetry.check import PingFileError, check_file

RULES = """
timezone = "UTC"

[[rules]]
id = "keep-away"
subjects = ["all"]
require = "outside"
zones = ["victim-home"]
severity = "critical"

[[rules]]
id = "contact"
subjects = ["all"]
require = "contact"
within = "1 h"
severity = "low"
"""
ZONE = {
    "type": "Feature",
    "properties": {"id": "victim-home", "radius_m": 300},
    "geometry": {"type": "Point", "coordinates": [-80.8431, 35.2271]},
}
HEADER = "device_id,time,lat,lon,accuracy_m,status,boot,seq\n"
INSIDE = "a17,2026-11-24T08:{minute:02}:00Z,35.2271,-80.8431,5,,1,{minute}\n"
OUTSIDE = "a17,2026-11-24T08:{minute:02}:00Z,35.2371,-80.8431,5,,1,{minute}\n"


@pytest.fixture
def rules(tmp_path):
    directory = tmp_path / "rules"
    (directory / "zones").mkdir(parents=True)
    (directory / "zones" / "zones.geojson").write_text(json.dumps(ZONE))
    (directory / "rules.toml").write_text(RULES)
    return directory


@pytest.fixture
def check(rules, tmp_path):
    def run(text: str, name: str = "pings.csv"):
        file = tmp_path / name
        file.write_text(text)
        return check_file(rules, file)

    return run


def test_a_violation_has_the_documented_fields(check):
    rows = [
        OUTSIDE.format(minute=0),
        INSIDE.format(minute=1),
        INSIDE.format(minute=2),
        OUTSIDE.format(minute=9),
    ]
    document = check(HEADER + "".join(rows)).document(transitions=True)
    (violation,) = document["violations"]
    assert violation.pop("sentence").startswith("a17")
    assert 0.95 < violation.pop("confidence") < 1
    assert violation == {
        "device_id": "a17",
        "rule_id": "keep-away",
        "zone_id": "victim-home",
        "opened_at": "2026-11-24T08:01:00Z",
        "confirmed_at": "2026-11-24T08:01:00Z",
        "closed_at": "2026-11-24T08:09:00Z",
        "depth_m": 300.0,
        "severity": "critical",
    }
    assert [(t["kind"], t["time"]) for t in document["transitions"]] == [
        ("ENTER", "2026-11-24T08:01:00Z"),
        ("EXIT", "2026-11-24T08:09:00Z"),
    ]
    assert "transitions" not in check(HEADER).document(transitions=False)


def test_rows_may_come_in_any_order_and_copies_count_once(check):
    rows = [
        OUTSIDE.format(minute=0),
        INSIDE.format(minute=1),
        INSIDE.format(minute=2),
        OUTSIDE.format(minute=9),
    ]
    straight = check(HEADER + "".join(rows)).document(transitions=True)
    shuffled = check(HEADER + "".join([rows[3], rows[1], rows[0], rows[2], rows[1]]))
    assert shuffled.document(transitions=True) == straight
    assert shuffled.notes == ["1 rows are copies of others and count once"]


def test_silence_between_two_pings_of_a_file_is_found(check):
    rows = "a17,2026-11-24T08:00:00Z,35.3,-80.8,5,,1,1\na17,2026-11-24T14:00:00Z,35.3,-80.8,5,,1,2\n"
    found = check(HEADER + rows).document(transitions=False)["violations"]
    assert [(v["rule_id"], v["closed_at"]) for v in found] == [("contact", "2026-11-24T14:00:00Z")]


def test_bad_rows_are_told_by_number_and_the_others_count(check):
    bad = [
        "a17,yesterday,35,-80,5,,1,2\n",
        "a 17,2026-11-24T08:00:00Z,35,-80,5,,1,3\n",
        "a17,2026-11-24T08:00:00Z,900,-80,5,,1,4\n",
        "a17,2026-11-24T08:00:00Z,here,-80,5,,1,5\n",
        "a17,2026-11-24T08:00:00Z,nan,-80,5,,1,6\n",
        "a17,2026-11-24T08:00:00Z,35,-80,5,strap_loose,1,7\n",
    ]
    checked = check(HEADER + INSIDE.format(minute=0) + "".join(bad))
    assert len(checked.document(transitions=False)["violations"]) == 1
    assert [note.split(":")[0] for note in checked.notes] == [f"pings.csv, row {n}" for n in range(2, 8)]


def test_parquet_with_types_of_its_own_gives_the_same(check, rules, tmp_path):
    rows = [OUTSIDE.format(minute=0), INSIDE.format(minute=1), OUTSIDE.format(minute=9)]
    from datetime import UTC, datetime

    minutes = [0, 1, 9]
    table = pa.table(
        {
            "device_id": ["a17"] * 3,
            "time": pa.array([datetime(2026, 11, 24, 8, m, tzinfo=UTC) for m in minutes]),
            "lat": [35.2371, 35.2271, 35.2371],
            "lon": [-80.8431] * 3,
            "accuracy_m": [5, 5, 5],
            "status": pa.array([[], [], []], pa.list_(pa.string())),
            "boot": [1, 1, 1],
            "seq": minutes,
        }
    )
    pq.write_table(table, tmp_path / "pings.parquet")
    from_csv = check(HEADER + "".join(rows))
    from_parquet = check_file(rules, tmp_path / "pings.parquet")
    assert from_parquet.document(transitions=True) == from_csv.document(transitions=True)
    assert from_parquet.notes == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lat\n1\n", "no column device_id and no column time"),
        ("device_id,lat\na,1\n", "no column time"),
        ("device_id,time,colour\na,0,red\n", "colour"),
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_known_columns(check, text, words):
    with pytest.raises(PingFileError, match=words) as caught:
        check(text)
    assert "accuracy_m" in str(caught.value)


def test_a_missing_file_and_missing_rules_say_so(rules, tmp_path):
    (tmp_path / "empty.csv").touch()
    with pytest.raises(PingFileError, match="header line"):
        check_file(rules, tmp_path / "empty.csv")
    with pytest.raises(PingFileError, match="No such file"):
        check_file(rules, tmp_path / "none.csv")
    with pytest.raises(RuleError, match=r"rules\.toml"):
        check_file(tmp_path, tmp_path / "none.csv")


def test_a_file_without_one_good_row_is_refused_not_called_innocent(check):
    rows = "".join(
        f"a17,2026-11-24T08:{minute:02}:00,35.2271,-80.8431,5,,1,{minute}\n" for minute in range(9)
    )
    with pytest.raises(PingFileError, match=r"not one of 9 rows can be read.*row 1: bad_time"):
        check(HEADER + rows)
    assert check(HEADER).document(transitions=False) == {"violations": []}


def test_a_column_twice_is_refused(check):
    with pytest.raises(PingFileError, match="two columns called time"):
        check("device_id,time,time\na17,2026-11-24T08:00:00Z,2026-11-24T09:00:00Z\n")


def test_whole_numbers_count_however_a_program_wrote_them(check, rules, tmp_path):
    """A column with gaps becomes one of floats in many programs."""
    header = HEADER.strip() + ",battery_pct\n"
    straight = check(header + INSIDE.format(minute=0).strip() + ",87\n")
    as_floats = check(header + "a17,2026-11-24T08:00:00Z,35.2271,-80.8431,5,,1.0,0.0,87.0\n")
    assert as_floats.notes == []
    assert as_floats.document(transitions=True) == straight.document(transitions=True)
    table = pa.table(
        {
            "device_id": ["a17", "a17"],
            "time": ["2026-11-24T08:00:00Z", "2026-11-24T08:00:01Z"],
            "lat": [Decimal("35.2271"), None],
            "lon": [Decimal("-80.8431"), None],
            "accuracy_m": [5, None],
            "seq": [0.0, 1.0],
            "boot": [1.0, 1.0],
            "battery_pct": [87.0, float("nan")],
        }
    )
    pq.write_table(table, tmp_path / "floats.parquet")
    checked = check_file(rules, tmp_path / "floats.parquet")
    assert checked.notes == []
    assert checked.document(transitions=True) == straight.document(transitions=True)
