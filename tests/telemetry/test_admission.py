"""Admission against a slow oracle, and what it must never do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geofence import Devices, Pings
from telemetry._kernels.window import WINDOW
from telemetry.admission import Admission, AdmissionError
from telemetry.columns import (
    MARK_CLOCK_OFF,
    MARK_IMPOSSIBLE_MOVEMENT,
    MARK_NOT_ENROLLED,
    MARK_TAG_WRONG,
    CheckIn,
    Decoded,
)
from telemetry.dating import MAX_AHEAD_US, MAX_BEHIND_US

NOW_US = 1_795_000_000_000_000
SECOND = 1_000_000


def decoded(pings: Pings, marks=0, check_ins=()) -> Decoded:
    n = len(pings)
    return Decoded(
        pings=pings,
        message=np.zeros(n, np.int32),
        marks=np.full(n, marks, np.uint16),
        check_ins=list(check_ins),
    )


class NotAsked:
    """A store that must not be asked."""

    def __call__(self, pings):
        raise AssertionError(f"asked for {len(pings)} pings")


class Ledger:
    """A store: the keys that were admitted, as the database would know them."""

    def __init__(self) -> None:
        self.keys: set[tuple] = set()
        self.asked = 0

    def add(self, pings: Pings) -> None:
        self.keys |= set(keys_of(pings))

    def __call__(self, pings: Pings) -> np.ndarray:
        self.asked += len(pings)
        return np.array([key in self.keys for key in keys_of(pings)], np.bool_)


def keys_of(pings: Pings) -> list[tuple]:
    return [
        (d, t, boot, seq) if seq >= 0 else (d, t, "at", lat, lon)
        for d, t, boot, seq, lat, lon in zip(
            pings.device.tolist(),
            pings.fix_time_us.tolist(),
            pings.boot.tolist(),
            pings.seq.tolist(),
            pings.lat_e7.tolist(),
            pings.lon_e7.tolist(),
            strict=True,
        )
    ]


def pings_of(devices: Devices, rows: list[tuple]) -> Pings:
    """Rows of device, time offset in s, boot, seq, lat, lon."""
    device, offset, boot, seq, lat, lon = (
        (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 6
    )
    return Pings.of(
        devices,
        device=device,
        fix_time_us=NOW_US + np.array(offset, np.int64) * SECOND,
        received_time_us=np.full(len(rows), NOW_US),
        boot=boot,
        seq=seq,
        lat_e7=lat,
        lon_e7=lon,
        accuracy_mm=np.full(len(rows), 1_000_000),
    )


row = st.tuples(
    st.integers(0, 2),
    st.integers(-60, 0),
    st.integers(0, 1),
    st.integers(-1, 2),
    st.integers(0, 1),
    st.integers(0, 1),
)


@given(batches=st.lists(st.lists(row, max_size=40), max_size=12), restart_at=st.integers(0, 12))
@settings(max_examples=200, deadline=None)
def test_every_key_is_admitted_once_whatever_the_order_splits_and_restarts(batches, restart_at):
    devices = Devices(["a", "b", "c"])
    ledger = Ledger()
    admission = Admission(devices, ledger)
    for number, rows in enumerate(batches):
        if number == restart_at:
            blob = admission.snapshot()
            devices = Devices(["z", "c", "a", "b"])  # other slots: the snapshot goes by ids
            renamed = {0: 2, 1: 3, 2: 1}
            ledger.keys = {(renamed[key[0]], *key[1:]) for key in ledger.keys}
            admission = Admission(devices, ledger)
            admission.restore(blob)
        slots = {0: 2, 1: 3, 2: 1} if number >= restart_at else {0: 0, 1: 1, 2: 2}
        pings = pings_of(devices, [(slots[device], *rest) for device, *rest in rows])
        admitted = admission.admit(decoded(pings), None)
        expected, seen = [], set(ledger.keys)
        for key in keys_of(pings):
            if key not in seen:
                seen.add(key)
                expected.append(key)
        assert keys_of(admitted.pings) == expected  # each once, in order of arrival
        assert admitted.duplicates == len(pings) - len(expected)
        ledger.add(admitted.pings)


def test_pings_in_order_and_their_copies_never_ask_the_store():
    devices = Devices(["a"])
    admission = Admission(devices, NotAsked())
    for minute in range(200):
        now = pings_of(devices, [(0, minute * 60 - 20_000, 1, minute, 0, 0)])
        before = pings_of(devices, [(0, (minute - 1) * 60 - 20_000, 1, minute - 1, 0, 0)])
        assert len(admission.admit(decoded(now), None).pings) == 1
        if minute:
            assert admission.admit(decoded(before), None).duplicates == 1


def test_what_is_older_than_the_window_is_asked_of_the_store_and_only_that():
    devices = Devices(["a"])
    ledger = Ledger()
    admission = Admission(devices, ledger)
    n = WINDOW + 10
    first = pings_of(devices, [(0, i - 1000, 1, i, 0, 0) for i in range(n)])
    ledger.add(admission.admit(decoded(first), None).pings)
    assert ledger.asked == 0
    again = admission.admit(decoded(first), None)
    assert again.duplicates == n
    assert ledger.asked == n - WINDOW


def test_a_copy_within_one_batch_counts_once_also_when_the_store_is_asked():
    devices = Devices(["a"])
    ledger = Ledger()
    admission = Admission(devices, ledger)
    newest = pings_of(devices, [(0, i - 100, 1, i, 0, 0) for i in range(WINDOW + 1)])
    ledger.add(admission.admit(decoded(newest), None).pings)
    late = pings_of(devices, [(0, -5000, 1, 900, 0, 0)] * 3)
    admitted = admission.admit(decoded(late), None)
    assert len(admitted.pings) == 1
    assert admitted.duplicates == 2


def test_a_failed_look_up_changes_nothing():
    devices = Devices(["a"])

    class Away(Exception):
        pass

    class Flaky(Ledger):
        away = False

        def __call__(self, pings):
            if self.away:
                raise Away
            return super().__call__(pings)

    ledger = Flaky()
    admission = Admission(devices, ledger)
    ledger.add(
        admission.admit(
            decoded(pings_of(devices, [(0, i - 100, 1, i, 0, 0) for i in range(WINDOW + 1)])), None
        ).pings
    )
    batch = pings_of(devices, [(0, -1, 1, 77, 0, 0), (0, -5000, 1, 900, 0, 0)])
    ledger.away = True
    with pytest.raises(Away):
        admission.admit(decoded(batch), None)
    ledger.away = False
    assert len(admission.admit(decoded(batch), None).pings) == 2


def test_replayed_pings_are_known():
    devices = Devices(["a", "b"])
    admission = Admission(devices, NotAsked())
    pings = pings_of(devices, [(i % 2, i - 100, 3, i, 5, 6) for i in range(10)])
    admission.remember(pings)
    assert admission.admit(decoded(pings), None).duplicates == 10


def test_a_forged_ping_does_not_keep_the_true_one_out():
    devices = Devices(["a"])
    admission = Admission(devices, NotAsked())
    ping = pings_of(devices, [(0, -10, 1, 5, 0, 0)])
    forged = admission.admit(decoded(ping, MARK_TAG_WRONG), None)
    assert forged.judged.tolist() == [False]
    true = admission.admit(decoded(ping), None)
    assert (len(true.pings), true.judged.tolist()) == (1, [True])
    assert admission.admit(decoded(ping), None).duplicates == 1
    assert admission.admit(decoded(ping, MARK_TAG_WRONG), None).duplicates == 1


@pytest.mark.parametrize(
    ("off_us", "taken", "marks"),
    [
        (0, True, 0),
        (60 * SECOND, True, 0),
        (60 * SECOND + 1, True, MARK_CLOCK_OFF),
        (MAX_AHEAD_US, True, MARK_CLOCK_OFF),
        (MAX_AHEAD_US + 1, False, 0),
        (-MAX_BEHIND_US, True, 0),
        (-MAX_BEHIND_US - 1, False, 0),
    ],
)
def test_times_far_from_ours_are_marked_or_set_aside(off_us, taken, marks):
    devices = Devices(["a"])
    ping = Pings.of(
        devices, device=[0], fix_time_us=[NOW_US + off_us], received_time_us=[NOW_US], seq=[4], boot=[2]
    )
    admitted = Admission(devices, NotAsked()).admit(decoded(ping), None)
    assert len(admitted.pings) == taken
    if taken:
        assert admitted.marks.tolist() == [marks]
        assert admitted.rejects == []
    else:
        (reject,) = admitted.rejects
        assert reject.reason == "misdated"
        assert b'"seq":4' in reject.payload
        assert reject.received_time_us == NOW_US


def test_the_roster_says_who_is_judged_and_when():
    devices = Devices(["in", "out", "partly"])
    rows = [(d, -t, 1, t, 0, 0) for t in range(6) for d in range(3)]

    def enrolled(device_id: str, time_us: int) -> bool:
        return device_id == "in" or (
            device_id == "partly" and NOW_US - 4 * SECOND <= time_us <= NOW_US - 2 * SECOND
        )

    pings = pings_of(devices, rows)
    admitted = Admission(devices, NotAsked()).admit(decoded(pings), enrolled)
    assert len(admitted.pings) == len(pings)  # stored all the same
    expected = [enrolled(devices.ids[d], t) for d, t in zip(pings.device, pings.fix_time_us, strict=True)]
    assert admitted.judged.tolist() == expected
    assert ((admitted.marks & MARK_NOT_ENROLLED) == 0).tolist() == expected


def fixes(
    devices: Devices, places: list[tuple[float, float]], accuracy_mm=5_000, step_s=60, device=0
) -> Pings:
    """A fix a minute at (latitude, longitude)."""
    n = len(places)
    return Pings.of(
        devices,
        device=np.full(n, device),
        fix_time_us=NOW_US + (np.arange(n) - n) * step_s * SECOND,
        received_time_us=np.full(n, NOW_US),
        seq=np.arange(n),
        boot=np.zeros(n),
        lat_e7=np.round(np.array([p[0] for p in places]) * 1e7),
        lon_e7=np.round(np.array([p[1] for p in places]) * 1e7),
        accuracy_mm=np.full(n, accuracy_mm),
    )


def jumps(places, **how) -> list[bool]:
    devices = Devices(["a"])
    admitted = Admission(devices, NotAsked()).admit(decoded(fixes(devices, places, **how)), None)
    return ((admitted.marks & MARK_IMPOSSIBLE_MOVEMENT) != 0).tolist()


HERE, THERE = (35.0, -80.0), (36.0, -80.0)  # 111 km apart: 1.85 km/s in a minute


def test_one_fix_far_off_is_marked_and_the_next_is_not():
    assert jumps([HERE, HERE, THERE, HERE]) == [False, False, True, False]


def test_a_second_fix_that_agrees_makes_the_jump_the_truth():
    assert jumps([HERE, THERE, THERE, THERE]) == [False, True, False, False]


def test_a_motorway_is_no_jump_and_the_antimeridian_is_none():
    assert jumps([(35.0, -80.0 + i * 0.02) for i in range(10)]) == [False] * 10  # 1.8 km a minute
    assert jumps([(35.0, 179.999), (35.0, -179.999)]) == [False, False]


def test_the_error_radii_are_taken_off():
    near = (35.1, -80.0)  # 11.1 km: 185 m/s
    assert jumps([HERE, near]) == [False, True]
    assert jumps([HERE, near], accuracy_mm=3_000_000) == [False, False]


def test_where_the_batch_is_split_changes_no_mark():
    devices = Devices(["a"])
    places = [HERE, THERE, HERE, THERE, THERE, (35.01, -80.0), HERE]
    pings = fixes(devices, places)
    whole = Admission(devices, NotAsked()).admit(decoded(pings), None).marks
    for cut in range(len(places) + 1):
        admission = Admission(devices, NotAsked())
        parts = [
            admission.admit(decoded(pings.take(part)), None).marks
            for part in (slice(0, cut), slice(cut, None))
        ]
        assert np.concatenate(parts).tolist() == whole.tolist()


def test_a_jump_is_judged_alike_after_a_restart():
    devices = Devices(["a"])
    pings = fixes(devices, [HERE, THERE, HERE])
    before = Admission(devices, NotAsked())
    before.admit(decoded(pings.take(slice(0, 2))), None)
    after = Admission(devices, NotAsked())
    after.restore(before.snapshot())
    assert after.admit(decoded(pings.take(slice(2, 3))), None).marks.tolist() == [0]


def test_a_check_in_that_comes_twice_counts_once():
    devices = Devices()
    admission = Admission(devices, NotAsked())
    call = CheckIn("line-1", NOW_US, NOW_US, "verified", "voice")
    again = CheckIn("line-1", NOW_US, NOW_US + SECOND, "verified", "voice")
    other = CheckIn("line-1", NOW_US, NOW_US, "failed", "voice")
    nothing = pings_of(devices, [])
    assert admission.admit(decoded(nothing, check_ins=[call]), None).check_ins == [call]
    later = Admission(devices, NotAsked())
    later.restore(admission.snapshot())
    admitted = later.admit(decoded(nothing, check_ins=[again, other]), None)
    assert (admitted.check_ins, admitted.duplicates) == ([other], 1)


def test_a_damaged_snapshot_is_refused():
    admission = Admission(Devices(["a"]), NotAsked())
    for blob in (b"", b"junk", admission.snapshot()[:-3]):
        with pytest.raises(AdmissionError, match="damaged"):
            admission.restore(blob)


def test_memory_per_device_is_bounded_and_as_documented():
    devices = Devices([f"d{i}" for i in range(1000)])
    admission = Admission(devices, Ledger())
    for day in range(3):
        rows = [(d, -day * 86_400 - i, 1, i, 0, 0) for d in range(1000) for i in range(30)]
        admission.admit(decoded(pings_of(devices, rows)), None)
    held = sum(array.nbytes for array in admission._arrays())
    assert held == 441 * 1000
