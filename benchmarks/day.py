"""What a day of a fleet costs: ``python -m benchmarks.day``: CPU, disk and write-ahead log.

200,000 devices, each with a ping a minute in a message of its own, are 3,333 messages a second and 288
million pings a day. The fleet sends at that very rate for some minutes; the rest of the day is extrapolated,
and the line says so. Disk is what the stored rows and their indexes take; the log is what PostgreSQL wrote
meanwhile. A short run holds more of the pages written whole after a checkpoint than its part of a day.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.end_to_end import wait_stored
from benchmarks.whole import Plan, Publisher, machine, whole

DAY_S = 86_400
SIZE = "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'pings'::regclass"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.day", description=__doc__)
    parser.add_argument("--devices", type=int, default=200_000)
    parser.add_argument("--every-s", type=float, default=60.0, help="between two pings of a device")
    parser.add_argument("--seconds", type=float, default=180.0, help="measured; the rest is extrapolated")
    parser.add_argument("--broker", default="mosquitto", choices=["mosquitto", "nats-server"])
    options = parser.parse_args()
    rate = options.devices / options.every_s
    pings = int(rate * options.seconds)
    with whole(options.broker) as run:
        publisher = Publisher(run.mqtt_url, Plan(options.devices, pings, pings_per_s=rate))
        try:
            began = run.ask("SELECT pg_current_wal_lsn() - '0/0'")
            size, before, began_s = run.ask(SIZE), run.cpu_s(), time.perf_counter()
            publisher.go()
            stored, last_s = wait_stored(run, publisher.pings)
            used = {who: after - before[who] for who, after in run.cpu_s().items()}
            log = run.ask("SELECT pg_current_wal_lsn() - '0/0'") - began
            disk = run.ask(SIZE) - size
        finally:
            publisher.stop()
    seconds = last_s - began_s
    whole_day = rate * DAY_S / stored
    print(machine())
    print(
        f"{options.devices:,} devices, a ping every {options.every_s:.0f} s: {stored:,} pings in "
        f"{seconds:.0f} s ({stored / seconds:,.0f} a second) behind {options.broker}\n"
        f"measured: {', '.join(f'{who} {s:.1f} CPU s' for who, s in used.items())}; "
        f"{disk / stored:.0f} bytes on disk and {log / stored:.0f} bytes of log a ping\n"
        f"a day, extrapolated by {whole_day:.0f}: {rate * DAY_S / 1e6:.0f} million pings; "
        + ", ".join(f"{who} {s * whole_day / 3600:.1f} CPU hours" for who, s in used.items())
        + f"; {disk * whole_day / 1e9:.0f} GB on disk, {log * whole_day / 1e9:.0f} GB of write-ahead log"
    )


if __name__ == "__main__":
    main()
