"""The COPY kernels against the database and against a slow packer."""

from __future__ import annotations

import struct

import numpy as np
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from geofence import COLUMNS, Devices, Pings
from telemetry.store import Store, StoreError
from telemetry.store.cells import CELL_E7, cells_around
from telemetry.store.packing import (
    COPY_HEADER,
    COPY_TRAILER,
    PING_COLUMNS,
    READ_COLUMNS,
    PingPacker,
    unpack,
)

POSTGRES_EPOCH_US = 946_684_800_000_000


def _naive(
    pings: Pings, marks: np.ndarray, judged: np.ndarray, share: int, batch: int, order: np.ndarray
) -> bytes:
    """The same bytes by way of struct."""
    out = bytearray(COPY_HEADER)

    def field(code: str, value: int | None) -> None:
        if value is None:
            out.extend(struct.pack(">i", -1))
        else:
            data = struct.pack(f">{code}", value)
            out.extend(struct.pack(">i", len(data)) + data)

    for i in order:
        p = {name: getattr(pings, name)[i].item() for name, _, _ in COLUMNS}
        known = {
            name: None if p[name] == unknown and name != "status" else p[name] for name, _, unknown in COLUMNS
        }
        lat, lon = known["lat_e7"], known["lon_e7"]
        out.extend(struct.pack(">h", 19))
        field("q", p["fix_time_us"] - POSTGRES_EPOCH_US)
        field("q", p["received_time_us"] - POSTGRES_EPOCH_US)
        field("q", known["seq"])
        field("q", batch)
        field("i", lat)
        field("i", lon)
        field(
            "i",
            None
            if lat is None or lon is None
            else (lat // CELL_E7 + 9000) * 40_000 + lon // CELL_E7 + 20_000,
        )
        for name in ("accuracy_mm", "speed_cmps", "heading_cdeg", "status"):
            field("i", known[name])
        field("i", marks[i].item())
        field("i", known["boot"])
        for name in ("altitude_m", "battery_pct", "satellites"):
            field("h", known[name])
        field("h", share)
        field("B", judged[i].item())
        device_id = pings.devices.ids[p["device"]].encode()
        out.extend(struct.pack(">i", len(device_id)) + device_id)
    return bytes(out) + COPY_TRAILER


@st.composite
def batches(draw: st.DrawFn) -> tuple[Pings, np.ndarray, np.ndarray]:
    ids = draw(
        st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), min_size=1, max_size=8, unique=True)
    )
    n = draw(st.integers(0, 20))
    devices = Devices(ids)
    columns = {}
    for name, dtype, unknown in COLUMNS:
        info = np.iinfo(dtype)
        low, high = info.min, info.max
        if name == "device":
            low, high = 0, len(ids) - 1
        elif name.endswith("_us"):
            low, high = 0, 4_102_444_800_000_000
        elif name == "seq":
            low = -1
        elif name == "lon_e7":
            low, high = -1_800_000_000, 1_800_000_000
        elif name == "lat_e7":
            low, high = -900_000_000, 900_000_000
        values = st.integers(low, high)
        if unknown is not None:
            values |= st.just(unknown)
        columns[name] = draw(npst.arrays(dtype, n, elements=values))
    marks = draw(npst.arrays(np.uint16, n))
    judged = draw(npst.arrays(np.bool_, n))
    return Pings.of(devices, **columns), marks, judged


@given(batches(), st.integers(0, 2**15 - 1), st.integers(0, 2**63 - 1))
def test_the_kernel_writes_what_struct_writes(batch, share, number):
    pings, marks, judged = batch
    packer = PingPacker()
    order = packer.order(pings)
    assert bytes(packer.pack(pings, marks, judged, share, number)) == _naive(
        pings, marks, judged, share, number, order
    )


@given(batches())
def test_the_order_is_by_id_then_time_and_is_complete(batch):
    pings, _, _ = batch
    order = PingPacker().order(pings)
    assert sorted(order) == list(range(len(pings)))
    keys = [(pings.devices.ids[pings.device[i]], pings.fix_time_us[i]) for i in order]
    assert keys == sorted(keys)


def test_devices_that_come_later_keep_the_order_complete():
    devices = Devices(f"device-{i:03d}" for i in range(100))
    packer = PingPacker()
    packer.order(Pings.of(devices, device=[5], fix_time_us=[1]))
    devices.slot("another")  # one more: not worth sorting all ids again
    pings = Pings.of(devices, device=[100, 3, 100], fix_time_us=[2, 1, 1])
    assert packer.order(pings).tolist() == [1, 2, 0]
    data = bytes(packer.pack(pings, np.zeros(3, np.uint16), np.ones(3, np.bool_), 0, 1))
    assert data.count(b"another") == 2


def test_every_column_comes_back_bit_equal(database_url, make):
    store = Store.open(database_url)
    store.migrate()
    store.close()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE TEMPORARY TABLE copied (LIKE pings)")

        @settings(max_examples=60, deadline=None)
        @given(batches())
        def round_trip(batch):
            pings, marks, judged = batch
            packer = PingPacker()
            with connection.cursor() as cursor:
                cursor.execute("TRUNCATE copied")
                with cursor.copy(f"COPY copied ({PING_COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
                    copy.write(packer.pack(pings, marks, judged, 3, 2**40))
                with cursor.copy(
                    f"COPY (SELECT {READ_COLUMNS} FROM copied) TO STDOUT (FORMAT BINARY)"
                ) as copy:
                    stored = unpack(copy, pings.devices)
            order = packer.order(pings)  # a heap of one page gives rows back as they went in
            for name, dtype, _ in COLUMNS:
                column = getattr(stored.pings, name)
                assert column.dtype == dtype
                assert np.array_equal(column, getattr(pings, name)[order]), name
            assert np.array_equal(stored.marks, marks[order])
            assert np.array_equal(stored.judged, judged[order])
            assert (stored.batch == 2**40).all()

        round_trip()


@pytest.mark.parametrize("cut", [1, 5, 20, 60])
def test_damaged_rows_are_refused(cut):
    row = bytes([0, 17, 0, 0, 0, 1, 97]) + b"\xff" * 64
    assert len(unpack([COPY_HEADER, row, COPY_TRAILER], Devices()).pings) == 1
    with pytest.raises(StoreError, match="unknown shape"):
        unpack([COPY_HEADER, row[:-cut]], Devices())


@given(
    st.integers(-899_999_999, 899_999_999),
    st.integers(-1_800_000_000, 1_800_000_000),
    st.floats(0, 3_000),
    st.floats(0, 1),
    st.floats(0, 2 * np.pi),
)
def test_cells_cover_every_place_within_reach(lat_e7, lon_e7, radius_m, share, angle):
    cells = cells_around(lat_e7, lon_e7, radius_m)
    assert len(cells) == len(set(cells))
    metres = radius_m * share
    north_e7 = lat_e7 + metres * np.cos(angle) / 111_200 * 1e7
    if abs(north_e7) > 899_000_000:
        return
    east_e7 = lon_e7 + metres * np.sin(angle) / (111_320 * np.cos(np.radians(north_e7 / 1e7))) * 1e7
    east_e7 = (east_e7 + 1_800_000_000) % 3_600_000_000 - 1_800_000_000
    cell = (int(north_e7) // CELL_E7 + 9000) * 40_000 + int(east_e7) // CELL_E7 + 20_000
    assert cell in cells
