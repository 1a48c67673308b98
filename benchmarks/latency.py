"""From a ping on the wire to its alert on the wire: ``python -m benchmarks.latency``.

A fleet sends 10,000 pings a second. Beside it a probe publishes one ping at a time, each of a device of its
own with an open strap, and a subscriber waits for its alert. The time between the two, taken in one process,
holds the broker's part twice, decode, admission, engine, commit, and the notifier's outbox. Prints the
percentiles, and draws the histogram to docs/images/latency.svg.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from html import escape
from pathlib import Path

import numpy as np

from benchmarks.whole import Plan, Publisher, connect, drain, frame, machine, whole
from telemetry.mqtt.topics import device_topic

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "latency.svg"
ROOT = "ringfence/v1"
WARM_S = 5.0  # of load before the first probe, and after the last
EDGES_MS = np.geomspace(1, 10_000, 81)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--broker", default="mosquitto", choices=["mosquitto", "nats-server"])
    parser.add_argument("--pings-per-s", type=float, default=10_000)
    parser.add_argument("--per-message", type=int, default=1)
    parser.add_argument("--probes", type=int, default=3_000)
    parser.add_argument("--probes-per-s", type=float, default=50)
    parser.add_argument("--out", type=Path, default=PICTURE)
    options = parser.parse_args()
    seconds = options.probes / options.probes_per_s
    plan = Plan(
        devices=20_000,
        pings=int(options.pings_per_s * (seconds + 2 * WARM_S)),
        per_message=options.per_message,
        pings_per_s=options.pings_per_s,
    )
    where = machine()
    with whole(options.broker) as run:
        publisher = Publisher(run.mqtt_url, plan)
        try:
            publisher.go()
            time.sleep(WARM_S)
            before = run.cpu_s()
            took_ms = probe(run.mqtt_url, options.probes, options.probes_per_s)
            used = {who: (after - before[who]) / seconds for who, after in run.cpu_s().items()}
        finally:
            publisher.stop()
    p50, p95, p99 = np.percentile(took_ms, [50, 95, 99])
    load = f"{options.broker}, {options.pings_per_s:,.0f} pings/s, {options.per_message} to a message, QoS 1"
    print(where)
    print(
        f"{load}: {len(took_ms)} alerts, p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, "
        f"longest {took_ms.max():.1f} ms; cores used: "
        + ", ".join(f"{who} {cores:.2f}" for who, cores in used.items())
    )
    options.out.write_text(svg(took_ms, f"{load}; {where}"))


def probe(mqtt_url: str, probes: int, probes_per_s: float) -> np.ndarray:
    """Milliseconds from publishing a ping to receiving its alert, one for each probe: float64 (probes,)."""
    alerts = Alerts(mqtt_url)
    sender = connect(mqtt_url, b"bench-probe")
    threading.Thread(target=drain, args=(sender,), daemon=True).start()
    began_s = time.perf_counter()
    sent_s: dict[str, float] = {}
    for k in range(probes):
        time.sleep(max(0.0, began_s + k / probes_per_s - time.perf_counter()))
        device_id = f"probe-{k}"
        topic = device_topic(ROOT, device_id, "pings").encode()
        payload = json.dumps({"time": time.time_ns() // 1_000_000, "seq": 1, "status": ["strap_open"]})
        packet_id = (k % 65_535 + 1).to_bytes(2, "big")
        sent_s[device_id] = time.perf_counter()
        sender.sendall(frame(0x32, len(topic).to_bytes(2, "big") + topic + packet_id + payload.encode()))
    received_s = alerts.wait(sent_s.keys(), 60.0)
    sender.close()
    return np.array([received_s[device_id] - at for device_id, at in sent_s.items()]) * 1000


class Alerts(threading.Thread):
    """Subscribes to all alerts and notes when the first of each device came."""

    def __init__(self, mqtt_url: str) -> None:
        super().__init__(daemon=True)
        self._connection = connect(mqtt_url, b"bench-operator")
        pattern = f"{ROOT}/alerts/#".encode()
        body = (
            b"\0\1" + len(pattern).to_bytes(2, "big") + pattern + b"\0"
        )  # QoS 0: no acknowledgement of ours
        self._connection.sendall(frame(0x82, body))
        self._came: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        data = b""
        while part := self._connection.recv(1 << 16):
            now_s = time.perf_counter()
            data += part
            while (found := _next_packet(data)) is not None:
                first, body, data = found
                if first >> 4 == 3:
                    topic = body[2 : 2 + int.from_bytes(body[:2], "big")].decode()
                    self._came.put((topic.split("/")[-2], now_s))

    def wait(self, device_ids, timeout_s: float) -> dict[str, float]:
        """When the alert of each of these devices came."""
        missing, received_s = set(device_ids), {}
        while missing:
            device_id, at_s = self._came.get(timeout=timeout_s)
            received_s.setdefault(device_id, at_s)
            missing.discard(device_id)
        return received_s


def _next_packet(data: bytes) -> tuple[int, bytes, bytes] | None:
    """First byte, body and what follows of a whole packet; None: it is not all there."""
    length = shift = 0
    for at in range(1, min(len(data), 5)):
        length |= (data[at] & 127) << shift
        shift += 7
        if data[at] < 128:
            end = at + 1 + length
            return (data[0], data[at + 1 : end], data[end:]) if len(data) >= end else None
    return None


def svg(took_ms: np.ndarray, title: str) -> str:
    """The histogram over a logarithmic scale, with the percentiles and the bar of 100 ms."""
    width, height, left, top = 760, 300, 50, 50
    counts, _ = np.histogram(np.clip(took_ms, EDGES_MS[0], EDGES_MS[-1]), EDGES_MS)
    high = max(int(counts.max()), 1)

    def x(ms: float) -> float:
        return left + (width - left - 20) * float(
            np.log(ms / EDGES_MS[0]) / np.log(EDGES_MS[-1] / EDGES_MS[0])
        )

    parts = ['<text x="8" y="18" font-weight="bold">Ping published to alert received</text>']
    parts.append(f'<text x="8" y="36" font-size="11" fill="#52606d">{escape(title)}</text>')
    for low_ms, high_ms, count in zip(EDGES_MS, EDGES_MS[1:], counts, strict=False):
        tall = (height - top - 40) * count / high
        parts.append(
            f'<rect x="{x(low_ms):.1f}" y="{height - 40 - tall:.1f}" '
            f'width="{x(high_ms) - x(low_ms) - 1:.1f}" height="{tall:.1f}" fill="#0b6e4f"/>'
        )
    parts += [
        f'<text x="{x(ms):.0f}" y="{height - 22}" text-anchor="middle">{ms:,} ms</text>'
        for ms in (1, 10, 100, 1_000, 10_000)
    ]
    for name, ms, colour in (
        *(
            (f"p{p} {np.percentile(took_ms, p):.0f} ms", np.percentile(took_ms, p), "#243b53")
            for p in (50, 99)
        ),
        ("the bar for p99", 100.0, "#c0392b"),
    ):
        at = x(float(np.clip(ms, EDGES_MS[0], EDGES_MS[-1])))
        low = top + 14 * (name.startswith("p99") + 2 * name.startswith("the"))
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{low}" y2="{height - 40}" stroke="{colour}" '
            f'stroke-dasharray="4 3"/><text x="{at + 4:.1f}" y="{low + 8}" fill="{colour}">{name}</text>'
        )
    parts.append(f'<text x="8" y="{height - 6}" font-size="11" fill="#52606d">{len(took_ms)} alerts</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


if __name__ == "__main__":
    main()
