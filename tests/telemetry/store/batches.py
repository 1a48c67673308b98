"""Batches to store, and a wire that can be cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from geofence import NO_TIME, TRANSITION, VIOLATION, Decided, Devices, Pings, Ruleset
from telemetry.columns import Admitted, Batch
from telemetry.store import Lease

NOW_US = 1_790_000_000_000_000  # 2026-09-21T14:13:20Z: the tests' clock stands still
DAY_US = 86_400_000_000

DOCUMENT = {
    "zones": {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": {"id": f"zone-{i}", "radius_m": 100.0, "layer": "schools"},
                "geometry": {"type": "Point", "coordinates": [-80.0 + i, 35.0]},
            }
            for i in range(3)
        ],
    },
    "rules": {
        "timezone": "UTC",
        "rules": [
            {"id": f"rule-{i}", "subjects": ["all"], "require": "outside", "zones": [f"zone-{i}"]}
            for i in range(3)
        ],
        "devices": [
            {"id": "a17", "kind": "ankle", "participant": "p-1", "groups": ["night"], "key": "A" * 43 + "="},
            {"id": "b2", "kind": "wrist", "from": "2026-01-01T00:00:00Z"},
        ],
    },
}


@dataclass
class Maker:
    """Makes batches, one after the other, of one share."""

    devices: Devices = field(default_factory=Devices)
    number: int = 0
    lease: Lease = field(default_factory=lambda: Lease(1, 0, None, 0))
    ruleset: Ruleset = field(default_factory=lambda: Ruleset.from_document(DOCUMENT))

    def pings(self, *device_ids: str, **columns: Any) -> Pings:
        """One ping of each device named; a column is given for all, or one value for each."""
        n = len(device_ids)
        columns = {
            "fix_time_us": NOW_US,
            "boot": 1,
            "seq": np.arange(n),
            "lat_e7": 350_000_000,
            "lon_e7": -800_000_000,
        } | columns
        full = {name: np.broadcast_to(value, n) for name, value in columns.items()}
        return Pings.of(self.devices, device=self.devices.slots(device_ids), **full)

    def batch(self, pings: Pings | None = None, *, marks: Any = 0, judged: Any = True, **more: Any) -> Batch:
        """The next batch. more: fields of Admitted or of Batch."""
        self.number += 1
        pings = Pings.empty(self.devices) if pings is None else pings
        admitted = Admitted(
            pings=pings,
            marks=np.broadcast_to(np.asarray(marks, np.uint16), len(pings)),
            judged=np.broadcast_to(np.asarray(judged, np.bool_), len(pings)),
            duplicates=0,
            rejects=more.pop("rejects", []),
            check_ins=more.pop("check_ins", []),
            statuses=more.pop("statuses", []),
            results=more.pop("results", []),
        )
        batch = Batch(
            share=0,
            epoch=self.lease.epoch,
            number=self.number,
            rules_version=1,
            admitted=admitted,
            decided=[],
            tick=None,
            alerts=[],
            outgoing=[],
        )
        return replace(batch, **more)

    def decided(
        self, transitions: Sequence[dict[str, int]] = (), violations: Sequence[dict[str, int]] = ()
    ) -> Decided:
        """Decisions from the fields that matter."""
        return Decided(
            devices=self.devices,
            ruleset=self.ruleset,
            transitions=_records(
                TRANSITION, transitions, {"kind": 1, "time_us": NOW_US, "confirmed_us": NOW_US}
            ),
            violations=_records(
                VIOLATION,
                violations,
                {
                    "change": 1,
                    "zone": -1,
                    "opened_us": NOW_US,
                    "confirmed_us": NOW_US,
                    "closed_us": NO_TIME,
                    "depth_error_mm": -1,
                },
            ),
            late=np.zeros(0, np.bool_),
        )


def _records(dtype: Any, rows: Sequence[dict[str, int]], usual: dict[str, int]) -> Any:
    records = np.zeros(len(rows), dtype)
    for record, row in zip(records, rows, strict=True):
        for name, value in (usual | row).items():
            record[name] = value
    return records


class Wire:
    """A proxy between a client and the database that understands the client's messages well enough to cut the
    wire after any of them."""

    def __init__(self, url: str) -> None:
        given = conninfo_to_dict(url)
        host, port = str(given["host"]), given.get("port", 5432)
        self._upstream: Any = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, int(port or 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = make_conninfo(
            url,
            host="127.0.0.1",
            port=self._listener.getsockname()[1],
            sslmode="disable",
            gssencmode="disable",
        )
        self.messages: list[bytes] = []  # what the client has sent since ``watch``
        self._cut_after = -1
        self._cut_reply_to: int | bytes = -1
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def watch(self, cut_after: int = -1, cut_reply_to: int | bytes = -1) -> None:
        """Begin to count; cut right after the n-th message (from 1), or when the server has answered it.

        A message may also be named by its bytes: how many come before it is the client's business.
        """
        self.messages = []
        self._cut_after, self._cut_reply_to = cut_after, cut_reply_to

    def close(self) -> None:
        # shutdown wakes the thread in accept; to close alone would leave it with a number that is used again
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                family = socket.AF_UNIX if isinstance(self._upstream, str) else socket.AF_INET
                server = socket.socket(family, socket.SOCK_STREAM)
                server.connect(self._upstream)
                for pump in (self._to_server, self._to_client):
                    threading.Thread(target=self._guard, args=(pump, client, server), daemon=True).start()

    @staticmethod
    def _guard(pump: Any, client: socket.socket, server: socket.socket) -> None:
        try:
            pump(client, server)
        except OSError:
            pass
        finally:
            for end in (client, server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        first = True
        while True:
            head = _exactly(client, 4 if first else 5)
            message = head + _exactly(client, int.from_bytes(head[-4:], "big") - 4)
            if not first:
                self.messages.append(message)
            server.sendall(message)
            first = False
            if len(self.messages) == self._cut_after:
                return

    def _to_client(self, client: socket.socket, server: socket.socket) -> None:
        while data := server.recv(1 << 16):
            if self._cut_reply_to in {len(self.messages), *self.messages[-1:]}:
                return
            client.sendall(data)


def _exactly(end: socket.socket, n: int) -> bytes:
    data = b""
    while len(data) < n:
        part = end.recv(n - len(data))
        if not part:
            raise OSError("the other end has gone")
        data += part
    return data
