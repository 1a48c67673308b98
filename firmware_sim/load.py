"""Load: a dense fleet whose every device samples in every tick, and its messages as MQTT bytes.

For measuring what stands behind a broker, a message must cost less to make than to take in. `Load` steps the
same state machines as a run does; `frames` lays the messages out as PUBLISH packets in one buffer, binary v1
inside, without a Python object for each.

>>> load = Load(devices=1000, seed=1)
>>> burst = load.step()
>>> len(load.frames(burst)) > 32 * len(burst.records)
True
"""

from __future__ import annotations

import dataclasses
import sys
import time
from typing import TYPE_CHECKING, Final

import numpy as np
from numba import njit

from firmware_sim.codec import RECORD, topic
from firmware_sim.device import TICK_S
from firmware_sim.fleet import Burst, Fleet
from firmware_sim.scenario import Scenario, build, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Load", "warm"]

_HEADER_BYTES: Final = 8
_RECORD_BYTES: Final = RECORD.itemsize
_PUBLISH_QOS1: Final = 0x32
_MAX_FIXED_HEADER: Final = 5
_TOPIC_LENGTH_BYTES: Final = 2
_PACKET_ID_BYTES: Final = 2
# Places in the buffer are unsigned: Numba asks of a signed one whether it counts from the end, and copies
# byte by byte. 100,000 messages of one sample take 15 ms so, and 42 ms with signed places.
_U64 = np.uint64


class Load:
    """A fleet for load: no tags, no JSON, every device due in every tick of five simulated seconds.

    ``per_message``: samples that a device collects before it sends; 1 sends each.
    """

    def __init__(
        self,
        devices: int,
        seed: int = 1,
        *,
        per_message: int = 1,
        root: str = "ringfence/v1",
        start_s: int = 1_780_000_000,
        scenario: Scenario | None = None,
    ) -> None:
        plan = scenario or load("city")
        mix = dataclasses.replace(
            plan.fleet,
            phone=0.0,
            json=0.0,
            tagged=0.0,
            moving_s=TICK_S,
            resting_s=TICK_S,
            upload_moving_s=per_message * TICK_S,
            upload_resting_s=per_message * TICK_S,
            flash_records=max(32, 2 * per_message),
        )
        self.fleet = Fleet(build(dataclasses.replace(plan, fleet=mix), devices, seed), seed, start_s)
        turn = np.arange(devices) % per_message  # not all in the same tick
        self.fleet.devices["next_upload_s"] = self.fleet.now_s + turn * TICK_S
        names = [topic(root, device_id, "pings").encode() for device_id in self.fleet.city.device_ids]
        self._topics = np.frombuffer(b"".join(names), np.uint8)
        self._topic_at = np.cumsum([0] + [len(name) for name in names])
        self._packet_id = 1

    def step(self) -> Burst:
        """The next five simulated seconds."""
        return self.fleet.step()

    def frames(self, burst: Burst) -> NDArray[np.uint8]:
        """The messages of a burst as PUBLISH packets at QoS 1, back to back: uint8 (b,).

        Packet ids count on from call to call, 1..65535.
        """
        lengths = np.diff(self._topic_at)[burst.device]
        around = _MAX_FIXED_HEADER + _TOPIC_LENGTH_BYTES + _PACKET_ID_BYTES + _HEADER_BYTES
        room = int(lengths.sum()) + around * len(lengths) + _RECORD_BYTES * len(burst.records)
        out = np.empty(room, np.uint8)
        used, self._packet_id = _frame(
            burst.device,
            burst.boot,
            burst.start,
            burst.stop,
            burst.records.view(np.uint8),
            self.fleet.city.kind,
            self._topics,
            self._topic_at,
            self._packet_id,
            out,
        )
        return out[:used]


@njit(nogil=True, cache=True)
def _frame(  # noqa: PLR0917 (columns)
    device: NDArray[np.int32],
    boot: NDArray[np.uint16],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    records: NDArray[np.uint8],
    kinds: NDArray[np.uint8],
    topics: NDArray[np.uint8],
    topic_at: NDArray[np.int64],
    packet_id: int,
    out: NDArray[np.uint8],
) -> tuple[int, int]:
    """Lay out messages as PUBLISH packets; returns the bytes used and the next packet id.

    device, boot, start, stop : of each message (k,), start and stop count records
    records  : uint8 (32 r,)  RECORD as bytes
    kinds    : uint8 (n,)
    topics   : uint8 (t,)     all topics, back to back
    topic_at : int64 (n + 1,)
    out      : uint8          written; large enough for all
    """
    at = _U64(0)
    for k in range(len(device)):
        i = device[k]
        first, count = _U64(start[k]), _U64(stop[k] - start[k])
        topic, topic_length = _U64(topic_at[i]), _U64(topic_at[i + 1] - topic_at[i])
        remaining = _U64(12) + topic_length + _U64(32) * count
        out[at] = _PUBLISH_QOS1
        at += _U64(1)
        while remaining >= _U64(128):
            out[at] = remaining & _U64(127) | _U64(128)
            remaining >>= _U64(7)
            at += _U64(1)
        out[at] = remaining
        out[at + _U64(1)] = topic_length >> _U64(8)
        out[at + _U64(2)] = topic_length & _U64(255)
        at += _U64(3)
        for j in range(topic_length):
            out[at + j] = topics[topic + j]
        at += topic_length
        out[at] = packet_id >> 8
        out[at + _U64(1)] = packet_id & 255
        packet_id = packet_id % 65_535 + 1
        out[at + _U64(2)] = 0xA7
        out[at + _U64(3)] = 1
        out[at + _U64(4)] = 0
        out[at + _U64(5)] = kinds[i]
        out[at + _U64(6)] = count & _U64(255)
        out[at + _U64(7)] = count >> _U64(8)
        out[at + _U64(8)] = boot[k] & 255
        out[at + _U64(9)] = boot[k] >> 8
        at += _U64(10)
        for j in range(_U64(32) * count):
            out[at + j] = records[_U64(32) * first + j]
        at += _U64(32) * count
    return int(at), packet_id


def warm() -> None:
    """Compile this module's kernel."""
    none = np.zeros(0, np.int64)
    _frame(
        np.zeros(0, np.int32),
        np.zeros(0, np.uint16),
        none,
        none,
        np.zeros(0, np.uint8),
        np.zeros(0, np.uint8),
        np.frombuffer(b"t", np.uint8),
        np.zeros(1, np.int64),
        1,
        np.zeros(0, np.uint8),
    )


def _measure(devices: int, ticks: int) -> None:
    """Print how much load one core makes, by CPU time."""
    for per_message in (1, 10):
        load_of = Load(devices, per_message=per_message)
        for _ in range(2 * per_message):
            load_of.frames(load_of.step())
        begun_s = time.process_time()
        pings = messages = size = 0
        for _ in range(ticks):
            burst = load_of.step()
            size += len(load_of.frames(burst))
            pings += len(burst.records)
            messages += len(burst.device)
        spent_s = time.process_time() - begun_s
        sys.stdout.write(
            f"{per_message:2d} samples in a message: {pings / spent_s / 1e6:.2f} M pings/s, "
            f"{messages / spent_s / 1e6:.2f} M messages/s, {size / spent_s / 1e6:.0f} MB/s\n"
        )


if __name__ == "__main__":
    _measure(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000, 20)
