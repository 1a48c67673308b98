"""The report: one HTML page that needs nothing else, written for people who decide about people."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.truth.events import deep_enough
from benchmarks.truth.judged import OURS, Judged, all_ways
from benchmarks.truth.plots import curve, delays
from benchmarks.truth.score import DEPTHS_M, DURATIONS_MIN, best_of
from benchmarks.truth.ways import MISSED

__all__ = ["page", "pictures"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.7rem } h2 { font-size: 1.25rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-size: 0.86rem; margin: 0.8rem 0; width: 100% }
th, td { padding: 0.3rem 0.55rem; border-bottom: 1px solid #e3e6ea; text-align: right }
th:first-child, td:first-child { text-align: left }
tr.ours { background: #e8f5ef; font-weight: 600 }
.met { color: #0b6e4f; font-weight: 600 } .missed { color: #b00020; font-weight: 600 }
.small { color: #57606a; font-size: 0.86rem } svg { width: 100%; height: auto }
"""


def page(document: dict[str, Any], report: Judged, grids: dict[int, list[list[tuple[int, int]]]]) -> str:
    """The whole page."""
    rows, ours = document["rows"], document["ours"]
    best = document["best_other"]
    shown = [ours, *(row for row in rows if row["plain"] and row["way"] != OURS)]
    body = [
        "<h1>How often are the alarms wrong, and how often do they miss?</h1>",
        (
            f"<p>{_number(document['device_months'])} months of monitored wear were simulated: "
            f"{_number(document['fixes'])} positions, {_number(document['events'])} true "
            f"violations of zones, "
            f"{_number(ours['deep_events'])} of them so deep and long that a monitoring "
            f"system must find them. "
            "The simulator knows where each wearer truly was, so every alarm of every method can be called "
            "right or wrong. All methods judged the same positions. What counts as what is defined in "
            "<code>docs/truth.md</code>.</p>"
        ),
        "<h2>What was asked, and what came out</h2>",
        _table(
            ("asked for", "bar", "measured", ""),
            (
                (
                    escape(bar["what"]),
                    escape(bar["asked"]),
                    _measure(bar),
                    '<span class="met">met</span>' if bar["met"] else '<span class="missed">missed</span>',
                )
                for bar in document["bars"]
            ),
        ),
        _doubt(ours),
        _against(best, document["best_other_as_tuned"]),
        "<h2>Each way as it comes</h2>",
        "<p>With the setting that it has when nobody thinks about it.</p>",
        _ways(shown),
        "<h2>Each way at its own best setting</h2>",
        (
            "<p>The setting with the fewest false violations among those that find at least "
            "99.5 % of the deep "
            "incursions; where none does, the one that finds most. Chosen on these very "
            "worlds, which favours "
            "the other ways: ours runs with its default profile.</p>"
        ),
        _ways([ours, *best_of(rows), *best_of(rows, usual=False)]),
        "<h2>The curve between false and missed</h2>",
        (
            "<p>Each point is a setting; up and to the right is worse. The dashed line is "
            "the share that may be "
            "missed, 0.5 %. Our points are confidences and the built-in profiles.</p>"
        ),
        curve(rows),
        "<h2>How late</h2>",
        _delays(rows, report, best),
        "<h2>What was found, by depth and duration</h2>",
        (
            "<p>Found of all true violations in which a position was taken at all, the shallow and the short "
            "included. Bold: the ones that must be found, if their depth is beyond three errors too.</p>"
        ),
        *_grids(rows, grids, best),
        "<h2>A month at home with network positions only</h2>",
        *_resting(document["resting"]),
        "<h2>What ours missed, each of them</h2>",
        _missed(document["our_missed"]),
        "<h2>Our false violations, each of them</h2>",
        _false(document["our_false"]),
        "<h2>How it was run</h2>",
        _about(document),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Ringfence: the truth benchmark'
        '</title><meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def pictures(document: dict[str, Any], report: Judged) -> dict[str, str]:
    """The page's pictures as files of their own, for other pages: name, SVG."""
    rows = document["rows"]
    return {"curve.svg": curve(rows), "delays.svg": _delays(rows, report, document["best_other"])}


def _measure(bar: dict[str, Any]) -> str:
    if np.isinf(bar["measured"]):
        return "no other way finds as many"
    if "%" in bar["asked"]:
        return f"{bar['measured']:.2f} %"
    return f"{bar['measured']:,.1f}" if bar["measured"] % 1 else f"{bar['measured']:,.0f}"


def _against(best: dict[str, Any] | None, tuned: dict[str, Any] | None) -> str:
    if best is None:
        return "<p>No other way finds 99.5 % at any of its settings.</p>"
    text = (
        f"<p>The best other way that finds as many is “{escape(best['way'])}”, {escape(best['setting'])}: "
        f"{_rate(best['false_per_device_month'])} false violations per device-month, found "
        f"{100 * best['found_share']:.2f} %, half of them after {best['delay_s_median']:.0f} s."
    )
    if tuned and (tuned["way"], tuned["setting"]) != (best["way"], best["setting"]):
        text += (
            f" Chosen on the worlds for tuning it would have been “{escape(tuned['way'])}”, "
            f"{escape(tuned['setting'])}: {_rate(tuned['false_per_device_month'])} false, found "
            f"{100 * tuned['found_share']:.2f} %."
        )
    return text + "</p>"


def _doubt(ours: dict[str, Any]) -> str:
    low, high = ours["found_share_95"]
    return (
        f"<p>Ours found {_number(ours['found'])} of {_number(ours['deep_events'])} deep incursions. So many "
        f"are a sample: the share in many more worlds like these lies between {100 * low:.2f} % and "
        f"{100 * high:.2f} % (Wilson's interval, 95 %).</p>"
    )


def _ways(rows: list[dict[str, Any]]) -> str:
    head = (
        "way",
        "setting",
        "deep found",
        "false per device-month",
        "delay, median",
        "delay, 95 %",
        "pings, median",
    )
    return _table(
        head,
        (
            (
                escape(row["way"]),
                escape(row["setting"]),
                f"{100 * row['found_share']:.2f} %",
                f"{_rate(row['false_per_device_month'])}",
                f"{row['delay_s_median']:.0f} s",
                f"{row['delay_s_p95']:.0f} s",
                f"{row['deep_pings_median']:g}",
            )
            for row in rows
        ),
        ours=lambda cells: cells[0] == OURS,
    )


def _delays(rows: list[dict[str, Any]], report: Judged, best: dict[str, Any] | None) -> str:
    deep = deep_enough(report.events)
    named = []
    for i, way in enumerate(all_ways()):
        is_best = best is not None and (way.name, way.setting) == (best["way"], best["setting"])
        if (way.plain and way.name in {OURS, "point in polygon", "dwell of 1 min"}) or is_best:
            taken = np.where(report.delay_us[i] == MISSED, -1, report.deep_pings[i])[deep]
            named.append((way.name, taken))
    assert len(rows) == len(report.delay_us)
    return delays(named)


def _grids(
    rows: list[dict[str, Any]], grids: dict[int, list[list[tuple[int, int]]]], best: dict[str, Any] | None
) -> list[str]:
    chosen = [i for i, row in enumerate(rows) if row["plain"] and row["way"] in {OURS, "point in polygon"}]
    chosen += [i for i, row in enumerate(rows) if row is best]
    parts = []
    for i in chosen:
        parts.append(f"<h3>{escape(rows[i]['way'])}, {escape(rows[i]['setting'])}</h3>")
        head = ("depth \\ minutes", *_ranges(DURATIONS_MIN))
        body = []
        for k, (name, line) in enumerate(zip(_ranges(DEPTHS_M), grids[i], strict=True)):
            cells = []
            for j, (count, found) in enumerate(line):
                cell = f"{found} of {count}" if count else "-"
                cells.append(
                    f"<b>{cell}</b>" if DEPTHS_M[k] >= 25 and DURATIONS_MIN[j] >= 2 and count else cell
                )
            body.append((f"{name} m", *cells))
        parts.append(_table(head, body))
    return parts


def _ranges(edges: tuple[float, ...]) -> list[str]:
    return [f"{a:g} to {b:g}" if np.isfinite(b) else f"over {a:g}" for a, b in pairwise(edges)]


def _resting(runs: list[dict[str, Any]]) -> list[str]:
    return [
        f"<p>Scenario {escape(run['scenario'])}: {_number(run['device_months'])} device-months, "
        f"{_number(run['fixes'])} Wi-Fi and cell positions, {100 * run['outside_home']:.0f} % of them "
        f"outside of the home's circle, with the curfew in force around the clock: "
        f"<b>{run['false']}</b> false "
        "violations.</p>"
        for run in runs
    ]


def _missed(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "<p>There are none.</p>"
    return _table(
        (
            "scenario, seed, device",
            "zone",
            "from",
            "lasted",
            "truly deep",
            "positions",
            "68 % of them off by",
        ),
        (
            (
                f"{row['scenario']}, {row['seed']}, {row['device_id']}",
                escape(row["zone_id"]),
                datetime.fromtimestamp(row["from_us"] / 1e6, UTC).strftime("%d %b %H:%M:%S UTC"),
                f"{(row['to_us'] - row['from_us']) / 6e7:.1f} min",
                f"{row['depth_m']:.0f} m",
                f"{row['fixes']}",
                f"{row['error_m']:.0f} m",
            )
            for row in rows
        ),
    )


def _false(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "<p>There are none.</p>"
    most = 100
    text = "" if len(rows) <= most else f"<p>The first {most} of {len(rows)}; truth.json has them all.</p>"
    return text + _table(
        ("scenario, seed, device", "zone", "opened", "lasted", "past the edge", "claimed", "truly off"),
        (
            (
                f"{row['scenario']}, {row['seed']}, {row['device_id']}",
                escape(row["zone_id"]),
                datetime.fromtimestamp(row["confirmed_us"] / 1e6, UTC).strftime("%d %b %H:%M:%S UTC"),
                f"{(row['closed_us'] - row['opened_us']) / 6e7:.1f} min",
                f"{row['depth_m']:.0f} m",
                "unknown" if row["accuracy_m"] < 0 else f"{row['accuracy_m']:.0f} m",
                f"{row['error_m']:.0f} m",
            )
            for row in rows[:most]
        ),
    )


def _about(document: dict[str, Any]) -> str:
    about = document["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    worlds = "; ".join(f"{scenario}, seed {seed}" for scenario, seed in document["reported_on"])
    tuned = "; ".join(f"{scenario}, seed {seed}" for scenario, seed in document["tuned_on"])
    return (
        f'<p class="small">{document["devices"]} devices for {document["days"]} days in each scenario. '
        f"Reported on: {escape(worlds)}. Settings of the other ways chosen on: {escape(tuned)}, and for the "
        "second table on the reported worlds themselves. Rules are broken more often than in life, so that "
        f"misses can be counted. Commit {escape(about['commit'])}; {escape(about['processor'])}, "
        f"{about['cores']} cores; Python {escape(about['python'])}; {escape(versions)}; "
        f"{document['took_s']} s. Again: <code>{escape(document['command'])}</code>.</p>"
    )


def _table(head: tuple[str, ...], body: Iterable[tuple[str, ...]], ours: Any = lambda _: False) -> str:
    lines = "".join(
        ('<tr class="ours">' if ours(cells) else "<tr>")
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>\n"
        for cells in body
    )
    return "<table><tr>" + "".join(f"<th>{name}</th>" for name in head) + f"</tr>\n{lines}</table>"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _number(value: float) -> str:
    return f"{value:,.0f}"
