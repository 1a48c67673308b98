"""``python -m benchmarks [--quick]``: measure against the peers; table, JSON and SVG in
benchmarks/results.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS", "TOKIO_WORKER_THREADS"):
    os.environ.setdefault(variable, "1")  # one core for everyone; set before anything is imported

import argparse  # noqa: E402 - see above
import json  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from importlib.metadata import PackageNotFoundError, version  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="small sets and few rounds: minutes, not an hour"
    )
    parser.add_argument("--pings", type=int, help="pings for us: 10,000,000; quick 400,000")
    parser.add_argument("--peer-pings", type=int, help="pings for the peers: 500,000; quick 40,000")
    parser.add_argument("--rounds", type=int, help="rounds, interleaved: 7; quick 3")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the results")
    options = parser.parse_args()

    from benchmarks import zones
    from benchmarks.chart import svg

    pings, peer_pings, rounds = (400_000, 40_000, 3) if options.quick else (10_000_000, 500_000, 7)
    sizes = {
        "pings": options.pings or pings,
        "peer_pings": options.peer_pings or peer_pings,
        "rounds": options.rounds or rounds,
    }
    rows = zones.run(*sizes.values())
    report = {"about": about(), "seed": zones.SEED, **sizes, "rows": rows}
    options.out.mkdir(exist_ok=True, parents=True)
    table = as_table(rows)
    (options.out / "zones.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "zones.txt").write_text(table)
    (options.out / "zones.svg").write_text(svg(rows))
    print(table)
    return 0


def about() -> dict[str, Any]:
    """The machine, the versions, the commit."""
    packages = ("numpy", "numba", "llvmlite", "shapely", "geopandas", "sedonadb", "duckdb", "pyproj")
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    processor = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "?"
    )
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit.stdout.strip(),
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def as_table(rows: list[dict[str, Any]]) -> str:
    """Text for people."""
    lines = []
    name = None
    for row in rows:
        if row["set"] != name:
            name = row["set"]
            lines += ["", name]
        if "note" in row:
            lines.append(f"  {row['who']:<28} {row['note']}")
            continue
        spread = f"{row['low_s'] / row['pings'] * 1e9:9.1f} .. {row['high_s'] / row['pings'] * 1e9:.1f}"
        ratio = f"   {row['times_best_peer']:.1f} x the best peer" if "times_best_peer" in row else ""
        lines.append(
            f"  {row['who']:<28} {row['median_s'] / row['pings'] * 1e9:10.1f} ns/ping ({spread.strip()})"
            f" {row['mpings_per_s']:9.2f} M/s{ratio}"
        )
    return "\n".join(lines).lstrip("\n") + "\n"


if __name__ == "__main__":
    sys.exit(main())
