"""``make truth``: live through months of a simulated fleet, judge them in every way, and write the report.

``python -m benchmarks.truth [--quick]`` writes ``index.html``, its pictures and ``truth.json`` (the figures,
the machine, the versions, the seeds, the command, the commit). ``--seed N`` reports on other worlds: N for
the first scenario, N + 1 for the second, …; so anybody can report on worlds that nobody has seen.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from benchmarks.__main__ import about
from benchmarks.truth.judged import Judged, judge_world, merge
from benchmarks.truth.report import page, pictures
from benchmarks.truth.resting import run_resting
from benchmarks.truth.score import bars, grid, rows_of
from benchmarks.truth.world import World

RESULTS: Final = Path(__file__).parents[1] / "results" / "truth"
# Other scenarios, and of the same scenario other seeds: nothing is reported on what a setting was chosen on.
TUNE: Final = (("city", 1), ("border-homes", 2))
REPORT: Final = (("city", 101), ("border-homes", 102), ("canyon", 103), ("storm", 104))
REST: Final = (("city", 201), ("canyon", 202))

Worlds = tuple[tuple[str, int], ...]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few devices for a few days: a minute")
    parser.add_argument("--devices", type=int, help="in each scenario (200; quick: 40)")
    parser.add_argument("--days", type=int, help="of each scenario (30; quick: 3)")
    parser.add_argument("--seed", type=int, help="of the first reported world; the next have the next ones")
    parser.add_argument("--out", type=Path, help="directory of the report (quick: build/truth)")
    options = parser.parse_args()
    devices = options.devices or (40 if options.quick else 200)
    days = options.days or (3 if options.quick else 30)
    out: Path = options.out or (Path("build/truth") if options.quick else RESULTS)
    reported = _seeded(REPORT, options.seed)
    rested = _seeded(REST, None if options.seed is None else options.seed + len(REPORT))
    begun_s = time.monotonic()
    tune, report, resting = _run(devices, days, reported, rested)
    rows = rows_of(report)
    document: dict[str, Any] = {
        "about": about(),
        "command": f"python -m benchmarks.truth --devices {devices} --days {days}"
        + ("" if options.seed is None else f" --seed {options.seed}"),
        "took_s": round(time.monotonic() - begun_s),
        "devices": devices,
        "days": days,
        "tuned_on": [list(world) for world in TUNE],
        "reported_on": [list(world) for world in reported],
        "device_months": report.months,
        "fixes": report.fixes,
        "events": len(report.events),
        **bars(rows, rows_of(tune), resting),
        "resting": resting,
        "rows": rows,
        "our_false": _dicts(report.our_false),
        "our_missed": _dicts(report.our_missed),
    }
    grids = {i: grid(report, i) for i in range(len(rows))}
    out.mkdir(parents=True, exist_ok=True)
    (out / "truth.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    (out / "index.html").write_text(page(document, report, grids), "utf-8")
    for name, picture in pictures(document, report).items():
        (out / name).write_text(picture + "\n", "utf-8")
    for bar in document["bars"]:
        print(f"{'met   ' if bar['met'] else 'MISSED'} {bar['what']}: {bar['measured']:.4g} ({bar['asked']})")
    print(f"{out / 'index.html'}")
    return 0


def _seeded(worlds: Worlds, seed: int | None) -> Worlds:
    """The same scenarios with other seeds."""
    if seed is None:
        return worlds
    return tuple((scenario, seed + k) for k, (scenario, _) in enumerate(worlds))


def _dicts(rows: NDArray[Any]) -> list[dict[str, Any]]:
    assert rows.dtype.names is not None
    return [dict(zip(rows.dtype.names, row.tolist(), strict=True)) for row in rows]


def _run(
    devices: int, days: int, reported: Worlds, rested: Worlds
) -> tuple[Judged, Judged, list[dict[str, Any]]]:
    """Live through every world, with a bar, a rate and the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    total = (len(TUNE) + len(reported) + len(rested)) * devices * days
    with Progress(*columns) as bar:
        task = bar.add_task("starting", total=total, rate="")
        begun_s, done = time.monotonic(), 0.0

        def listen(name: str) -> Callable[[float], None]:
            def hear(share: float) -> None:
                now = done + share * devices * days
                per_s = now / max(time.monotonic() - begun_s, 1e-3)
                bar.update(task, completed=now, description=name, rate=f"{per_s:,.0f} device-days/s")

            return hear

        def live(worlds: Worlds) -> Judged:
            nonlocal done
            parts = []
            for scenario, seed in worlds:
                parts.append(judge_world(World(scenario, seed, devices, days), listen(scenario)))
                done += devices * days
            return merge(parts)

        tune, report = live(TUNE), live(reported)
        resting = []
        for scenario, seed in rested:
            resting.append(run_resting(scenario, seed, devices, days, listen(f"resting, {scenario}")))
            done += devices * days
    return tune, report, resting


if __name__ == "__main__":
    sys.exit(main())
