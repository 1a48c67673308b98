"""The whole way: ``python -m benchmarks.end_to_end``: publisher, mosquitto, engine, database, on one machine.

A publisher process streams simulated pings at QoS 1 as fast as the broker takes them; the clock runs from its
first byte until the last ping is a committed row, which is also when the engine acknowledges it. Prints the
messages and pings a second, and the CPU seconds of publisher, broker, engine and database for each million
messages. Needs mosquitto; the database is the embedded one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg

from firmware_sim.load import Load
from telemetry.services.postgres import EmbeddedPostgres
from telemetry.services.state import read_state

TICKS_S = 5
HERTZ = os.sysconf("SC_CLK_TCK")
MOSQUITTO = (
    "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
)
RULES = """
timezone = "UTC"
[[rules]]
id = "keep-away"
subjects = ["all"]
require = "outside"
layer = "schools"
severity = "high"
[[rules]]
id = "strap"
subjects = ["all"]
require = "strap_closed"
severity = "high"
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__)
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    for per_message in (1, 10):
        messages = options.messages // per_message
        rounds = [measure(options.devices, messages, per_message) for _ in range(options.rounds)]
        rates = [r["messages"] / r["seconds"] for r in rounds]
        print(
            f"{per_message:>2} pings a message: {statistics.median(rates):>8,.0f} messages/s "
            f"({min(rates):,.0f} .. {max(rates):,.0f}), "
            f"{statistics.median(r['pings'] / r['seconds'] for r in rounds):>9,.0f} pings/s; "
            "CPU s for a million messages: "
            + ", ".join(
                f"{who} {statistics.median(r[who] / r['messages'] for r in rounds) * 1e6:.1f}"
                for who in ("publisher", "broker", "engine", "database")
            )
        )


def measure(devices: int, messages: int, per_message: int) -> dict[str, float]:
    """One round on fresh servers."""
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-", dir="/tmp") as folder:
        home = Path(folder)
        home.chmod(0o711)
        port = free_port()
        (home / "mosquitto.conf").write_text(MOSQUITTO.format(port=port))
        program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin")
        if program is None:
            sys.exit("mosquitto is needed")
        broker = subprocess.Popen([program, "-c", home / "mosquitto.conf"], stderr=subprocess.DEVNULL)
        postgres = EmbeddedPostgres(home / "database")
        database_url = postgres.start()
        command = [sys.executable, "-m", "telemetry.cli", "up", "--http", "127.0.0.1:0"]
        command += ["--data-dir", str(home / "engine"), "--rules", str(rules(home))]
        command += ["--mqtt-url", f"mqtt://127.0.0.1:{port}", "--database-url", database_url]
        engine = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            while read_state(home / "engine") is None:
                assert engine.poll() is None, "the engine ended"
                time.sleep(0.1)
            servers = {"broker": [broker.pid], "engine": [engine.pid], "database": family(postgres.pid or 0)}
            (ready, told), go = multiprocessing.Pipe(duplex=False), multiprocessing.Event()
            publisher = multiprocessing.Process(
                target=publish,
                args=(port, devices, messages, per_message),
                kwargs={"ready": told, "go": go},
            )
            publisher.start()
            made, pings = ready.recv()
            before = {who: cpu_s(pids) for who, pids in servers.items()} | {
                "publisher": cpu_s([publisher.pid])
            }
            began_s = time.perf_counter()
            go.set()
            with psycopg.connect(database_url, autocommit=True) as connection:
                while connection.execute("SELECT coalesce(sum(pings), 0) FROM batches").fetchone()[0] < pings:
                    assert engine.poll() is None, "the engine ended"
                    time.sleep(0.05)
            seconds = time.perf_counter() - began_s
            servers["database"] = family(postgres.pid or 0)
            after = {who: cpu_s(pids) for who, pids in servers.items()} | {
                "publisher": cpu_s([publisher.pid])
            }
            publisher.terminate()
            return {"seconds": seconds, "messages": made, "pings": pings} | {
                who: after[who] - before[who] for who in after
            }
        finally:
            engine.terminate()
            engine.wait()
            broker.terminate()
            broker.wait()
            postgres.stop()


def publish(port: int, devices: int, messages: int, per_message: int, *, ready, go) -> None:
    """Stream PUBLISH packets, made beforehand, and read the PUBACKs; stay, so that CPU can be read."""
    load = Load(devices, 1, per_message=per_message, start_s=int(time.time()) - 86_400)
    packets: list[bytes] = []
    made = pings = 0
    while made < messages:
        burst = load.step()
        made += len(burst.device)
        pings += int((burst.stop - burst.start).sum())
        packets.append(load.frames(burst).tobytes())
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = b"bench-publisher"
    body = struct.pack(">H4sBBHH", 4, b"MQTT", 4, 2, 0, len(name)) + name
    connection.sendall(bytes((0x10, len(body))) + body)
    connection.recv(4)
    threading.Thread(target=drain, args=(connection,), daemon=True).start()
    ready.send((made, pings))
    go.wait()
    for packet in packets:
        connection.sendall(packet)
    threading.Event().wait()


def drain(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


def rules(home: Path) -> Path:
    directory = home / "rules"
    (directory / "zones").mkdir(parents=True)
    circles = [
        {
            "type": "Feature",
            "properties": {"id": f"school-{i}", "layer": "schools", "radius_m": 200},
            "geometry": {"type": "Point", "coordinates": [-80.9 + 0.01 * (i % 20), 35.1 + 0.01 * (i // 20)]},
        }
        for i in range(400)
    ]
    collection = {"type": "FeatureCollection", "features": circles}
    (directory / "zones" / "schools.geojson").write_text(json.dumps(collection))
    (directory / "rules.toml").write_text(RULES)
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def cpu_s(pids: list[int]) -> float:
    """CPU seconds of processes that run, user and system."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / HERTZ


if __name__ == "__main__":
    main()
