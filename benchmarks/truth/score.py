"""From judged worlds to the figures of the report: rows for each way, tables of what was missed, the bars."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.events import KINDS, deep_enough
from benchmarks.truth.judged import OURS, Judged, all_ways
from benchmarks.truth.ways import MISSED

__all__ = ["DEPTHS_M", "DURATIONS_MIN", "FOUND_SHARE", "bars", "best_of", "grid", "rows_of", "wilson"]

FOUND_SHARE: Final = 0.995
DEPTHS_M: Final = (0.0, 10.0, 25.0, 50.0, 100.0, np.inf)
DURATIONS_MIN: Final = (0.0, 1.0, 2.0, 5.0, 15.0, np.inf)


def rows_of(judged: Judged) -> list[dict[str, Any]]:
    """For each way and setting: the share of deep events found, how late, and how often it was wrong."""
    deep = deep_enough(judged.events)
    rows = []
    for i, way in enumerate(all_ways()):
        delay_us = judged.delay_us[i]
        found = delay_us[deep] != MISSED
        late_s = delay_us[deep][found] / 1e6
        false = judged.false[:, i]
        rows.append(
            {
                "way": way.name,
                "setting": way.setting,
                "plain": way.plain,
                "usual": way.usual,
                "deep_events": int(deep.sum()),
                "found": int(found.sum()),
                "found_share": float(found.mean()) if len(found) else 0.0,
                "found_share_95": wilson(int(found.sum()), int(deep.sum())),
                "found_share_of_all": float((delay_us != MISSED).mean()) if len(delay_us) else 0.0,
                "violations": int(judged.violations[i]),
                "false": int(false.sum()),
                "false_by_kind": dict(zip(KINDS, false.tolist(), strict=True)),
                "false_per_device_month": float(false.sum()) / judged.months,
                "delay_s_median": _quantile(late_s, 0.5),
                "delay_s_p95": _quantile(late_s, 0.95),
                "pings_median": _quantile(judged.pings[i][deep][found], 0.5),
                "deep_pings_median": _quantile(judged.deep_pings[i][deep][found], 0.5),
                "deep_pings_p95": _quantile(judged.deep_pings[i][deep][found], 0.95),
            }
        )
    return rows


def wilson(found: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share that was counted (E. B. Wilson, JASA 22, 1927).

    >>> tuple(round(edge, 4) for edge in wilson(199, 200))
    (0.9722, 0.9991)
    """
    if of == 0:
        return 0.0, 1.0
    z, share = 1.959964, found / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, (middle - half) / (1 + z * z / of)), min(1.0, (middle + half) / (1 + z * z / of))


def best_of(rows: list[dict[str, Any]], *, usual: bool = True) -> list[dict[str, Any]]:
    """Each way at its own best setting: fewest false at the share that must be found, else most found."""
    chosen: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["way"] == OURS or row["usual"] != usual:
            continue
        best = chosen.get(row["way"])
        if best is None or _rank(row) < _rank(best):
            chosen[row["way"]] = row
    return list(chosen.values())


def grid(judged: Judged, row: int) -> list[list[tuple[int, int]]]:
    """By depth, then duration: how many events there were, and how many a way found.

    Events without any fix in them are left out: nobody could have found them.
    """
    events = judged.events
    seen = events["fixes"] > 0
    depth = np.digitize(events["depth_m"], DEPTHS_M[1:-1])
    minutes = np.digitize((events["to_us"] - events["from_us"]) / 60e6, DURATIONS_MIN[1:-1])
    found = judged.delay_us[row] != MISSED
    return [
        [
            (int(here.sum()), int((here & found).sum()))
            for here in (seen & (depth == i) & (minutes == j) for j in range(len(DURATIONS_MIN) - 1))
        ]
        for i in range(len(DEPTHS_M) - 1)
    ]


def bars(rows: list[dict[str, Any]], tuned: list[dict[str, Any]], resting: list[dict[str, Any]]) -> Any:
    """What was asked for and what came out.

    tuned : the same rows of other worlds, on which the other ways' settings may be chosen
    """
    ours = next(row for row in rows if row["way"] == OURS and row["plain"])
    plain = next(row for row in rows if row["way"] == "point in polygon" and row["plain"])
    able = [row for row in best_of(rows) if row["found_share"] >= FOUND_SHARE]
    best = min(able, key=lambda row: row["false"], default=None)
    choice = [row for row in best_of(tuned) if row["found_share"] >= FOUND_SHARE]
    picked = min(choice, key=lambda row: row["false"], default=None)
    carried = next(
        (
            row
            for row in rows
            if picked and (row["way"], row["setting"]) == (picked["way"], picked["setting"])
        ),
        None,
    )
    at_least = max(ours["false"], 1)
    false_at_rest = sum(run["false"] for run in resting)
    return {
        "bars": [
            _bar("share of the deep incursions found", ">= 99.5 %", ours["found_share"] * 100, ">=", 99.5),
            _bar("times fewer false than point in polygon", ">= 100", plain["false"] / at_least, ">=", 100.0),
            _bar(
                "times fewer false than the best other way that finds as many",
                ">= 10",
                best["false"] / at_least if best else np.inf,
                ">=",
                10.0,
            ),
            _bar("false violations of stationary devices, network fixes only", "0", false_at_rest, "<=", 0),
            _bar(
                "pings from the first deep one to the opening, median",
                "1",
                ours["deep_pings_median"],
                "<=",
                1,
            ),
        ],
        "ours": ours,
        "plain": plain,
        "best_other": best,
        "best_other_as_tuned": carried,
    }


def _bar(what: str, asked: str, measured: float, sense: str, bound: float) -> dict[str, Any]:
    met = measured >= bound if sense == ">=" else measured <= bound
    return {"what": what, "asked": asked, "measured": float(measured), "met": bool(met)}


def _rank(row: dict[str, Any]) -> tuple[bool, float, float]:
    enough = row["found_share"] >= FOUND_SHARE
    return (not enough, row["false"] if enough else -row["found_share"], row["delay_s_median"])


def _quantile(values: NDArray[Any], share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else float("nan")
