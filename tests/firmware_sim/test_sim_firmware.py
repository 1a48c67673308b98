"""Firmware versions: what each leaves out, and that adding some to a fleet leaves the others alone."""

import dataclasses

import numpy as np
import pytest

from firmware_sim.codec import KIND_PHONE, NO_FIX, RECORD, STATUS_BITS
from firmware_sim.firmware import VERSIONS
from firmware_sim.fleet import Fleet
from firmware_sim.scenario import build, load

START_S = 1_779_966_000  # 07:00 local: many are on the way
MOVING = STATUS_BITS["moving"]


@pytest.fixture(scope="module")
def sent() -> dict[str, tuple[np.ndarray, np.ndarray, set[int]]]:
    """An hour and a half: by version the records, their device, and the first bytes of the messages."""
    city = build(load("versions"), 300, 5)
    fleet = Fleet(city, 5, START_S)
    records: list[list[np.ndarray]] = [[] for _ in VERSIONS]
    devices: list[list[np.ndarray]] = [[] for _ in VERSIONS]
    first: list[set[int]] = [set() for _ in VERSIONS]
    for _ in range(1080):
        burst = fleet.step()
        of = city.version[burst.due]
        for k in range(len(VERSIONS)):
            records[k].append(burst.samples[of == k])
            devices[k].append(burst.due[of == k])
        for j in range(0, len(burst.device), 9):
            first[city.version[burst.device[j]]].add(fleet.payload(burst, j)[0])
    return {
        firmware.version: (np.concatenate(records[k]), np.concatenate(devices[k]), first[k])
        for k, firmware in enumerate(VERSIONS)
    }


# What a version knows, field by field: written out once more, so that the table can't agree with itself.
KNOWS = {
    "1.4": {"speed", "heading", "moving", "satellites"},
    "1.8": {"accuracy", "altitude", "satellites"},
    "2.0": {"accuracy", "altitude", "speed", "heading", "moving", "satellites"},
    "2.1": {"accuracy", "altitude", "speed", "heading", "moving", "satellites"},
    "2.3": {"accuracy", "speed", "heading", "moving"},
}


def known(records: np.ndarray) -> set[str]:
    fixes = records[records["lat_e7"] != NO_FIX]
    says = {
        "accuracy": fixes["accuracy_dm"] != 65_535,
        "altitude": fixes["altitude_m"] != -32_768,
        "speed": fixes["speed_cmps"] != 65_535,
        "heading": fixes["heading_cdeg"] != 65_535,
        "moving": records["status"] & MOVING != 0,
        "satellites": fixes["satellites"] != 255,
    }
    return {name for name, is_known in says.items() if is_known.any()}


@pytest.mark.parametrize("version", sorted(KNOWS))
def test_a_version_sends_what_its_row_says_and_nothing_else(
    sent: dict[str, tuple[np.ndarray, np.ndarray, set[int]]], version: str
) -> None:
    records, _, first = sent[version]
    assert len(records) > 1000
    assert records.dtype == RECORD
    assert known(records) == KNOWS[version]
    assert first <= ({ord("{"), ord("[")} if version == "2.1" else {0xA7})


def test_every_version_has_a_row_here() -> None:
    assert [firmware.version for firmware in VERSIONS] == sorted(KNOWS)


def test_the_saver_takes_a_third_of_the_samples(
    sent: dict[str, tuple[np.ndarray, np.ndarray, set[int]]],
) -> None:
    def gaps_s(version: str) -> np.ndarray:
        """Between samples of the same device, both resting."""
        records, device, _ = sent[version]
        order = np.argsort(device, kind="stable")
        time_s = records["time_ms"][order].astype(np.int64) / 1000
        rest = records["status"][order] & (MOVING | 3) == 0
        same = (np.diff(device[order]) == 0) & rest[1:] & rest[:-1]
        return np.asarray(np.diff(time_s)[same])

    assert np.median(gaps_s("2.0")) == pytest.approx(60.0, abs=0.1)
    assert np.median(gaps_s("2.3")) == pytest.approx(180.0, abs=0.1)


def test_more_versions_leave_the_old_and_the_json_devices_as_they_were() -> None:
    plan = load("city")
    mixed = dataclasses.replace(plan, fleet=dataclasses.replace(plan.fleet, blunt=0.3, saver=0.2))
    before, after = build(plan, 4000, 3), build(mixed, 4000, 3)
    changed = before.version != after.version
    current = next(k for k, firmware in enumerate(VERSIONS) if firmware.share is None)
    assert set(before.version[changed]) == {current}
    share = dict(zip(*np.unique(after.version[before.version == current], return_counts=True), strict=True))
    total = sum(share.values())
    assert {VERSIONS[k].share: round(n / total, 1) for k, n in share.items()} == {
        None: 0.5,
        "blunt": 0.3,
        "saver": 0.2,
    }
    assert not (after.json & np.array([key is not None for key in after.keys])).any()
    assert (after.kind == KIND_PHONE).sum() == (before.kind == KIND_PHONE).sum()
