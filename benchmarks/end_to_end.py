"""The whole way: ``python -m benchmarks.end_to_end``: publisher, broker, engine, database, on one machine.

A publisher process streams simulated pings as fast as the broker takes them, at QoS 0 and 1, one and ten to a
message, behind mosquitto and behind nats-server; the clock runs from its first byte until the last ping is a
committed row, which at QoS 1 is also when the engine acknowledges it. Prints messages and pings a second, and
what share of the CPU time publisher, broker, engine and database took. At QoS 0 a broker may drop what it
can't deliver at once: then the rate is that of what arrived, and the loss is told.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import product

from benchmarks.whole import Plan, Publisher, Whole, machine, whole

QUIET_S = 3.0  # without a new row: what has not come by then was dropped
PARTS = ("publisher", "broker", "engine", "database")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.end_to_end", description=__doc__)
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--messages", type=int, default=200_000, help="a tenth of it for nats-server")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--brokers", nargs="+", default=["mosquitto", "nats-server"])
    options = parser.parse_args()
    print(machine())
    for broker, qos, per_message in product(options.brokers, (1, 0), (1, 10)):
        messages = options.messages // (10 if broker == "nats-server" else 1)
        plan = Plan(options.devices, messages, per_message, qos)
        show(broker, plan, [measure(broker, plan) for _ in range(options.rounds)])


def measure(broker: str, plan: Plan) -> dict[str, float]:
    """One round on fresh servers."""
    with whole(broker) as run:
        publisher = Publisher(run.mqtt_url, plan)
        try:
            before = run.cpu_s() | {"publisher": publisher.cpu_s()}
            began_s = time.perf_counter()
            publisher.go()
            stored, last_s = wait_stored(run, publisher.pings)
            after = run.cpu_s() | {"publisher": publisher.cpu_s()}
        finally:
            publisher.stop()
    return {
        "seconds": last_s - began_s,
        "pings": stored,
        "messages": publisher.messages * stored / publisher.pings,
        "lost": 1 - stored / publisher.pings,
    } | {who: after[who] - before[who] for who in PARTS}


def wait_stored(run: Whole, pings: int) -> tuple[int, float]:
    """How many pings were stored in the end, and when the last one was."""
    stored, last_s = 0, time.perf_counter()
    while stored < pings:
        assert run.engine.poll() is None, "the engine ended"
        now = run.ask("SELECT coalesce(sum(pings), 0) FROM batches")
        if now > stored:
            stored, last_s = now, time.perf_counter()
        elif stored and time.perf_counter() > last_s + QUIET_S:
            break
        time.sleep(0.05)
    return stored, last_s


def show(broker: str, plan: Plan, rounds: list[dict[str, float]]) -> None:
    """A line: the median of the rounds, and the range."""
    rates = [r["messages"] / r["seconds"] for r in rounds]
    busy = [sum(r[who] for who in PARTS) for r in rounds]
    shares = ", ".join(
        f"{who} {statistics.median(r[who] / all_s for r, all_s in zip(rounds, busy, strict=True)):.0%} "
        f"({statistics.median(r[who] / r['messages'] for r in rounds) * 1e6:.1f} us)"
        for who in PARTS
    )
    lost = statistics.median(r["lost"] for r in rounds)
    print(
        f"{broker:<11} QoS {plan.qos}, {plan.per_message:>2} to a message: {statistics.median(rates):>8,.0f} "
        f"messages/s ({min(rates):,.0f} .. {max(rates):,.0f}), "
        f"{statistics.median(r['pings'] / r['seconds'] for r in rounds):>8,.0f} pings/s; "
        f"CPU (and of a message): {shares}" + (f"; {lost:.1%} dropped by the broker" if lost > 0 else ""),
        flush=True,
    )


if __name__ == "__main__":
    main()
