"""The report's pictures, SVG written by hand: the curve between false and missed, and how late ways are."""

from __future__ import annotations

import math
from html import escape
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.truth.judged import OURS

__all__ = ["COLOURS", "curve", "delays"]

COLOURS: Final = {
    OURS: "#0b6e4f",
    "point in polygon": "#c1121f",
    "2 fixes in a row": "#f4a259",
    "3 fixes in a row": "#e07a1f",
    "5 fixes in a row": "#a44a00",
    "dwell of 1 min": "#8ab6f9",
    "dwell of 5 min": "#1d4e89",
    "accuracy circle outside": "#7b2cbf",
    "Android's overlap rule": "#d6409f",
    "circle outside, twice": "#6c757d",
}
_WIDTH, _HEIGHT = 860, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 220, 20, 50
_LOW_FALSE, _HIGH_FALSE = 0.003, 10_000.0
_LOW_MISSED, _HIGH_MISSED = 0.02, 100.0


def curve(rows: list[dict[str, Any]]) -> str:
    """False violations against missed incursions, the best settings of each way; both axes by powers."""
    parts = [*_frame()]
    names = list(dict.fromkeys(row["way"] for row in rows))
    for name in names:
        mine = [row for row in rows if row["way"] == name]
        front = _front(mine)
        points = [_place(row) for row in front]
        colour = COLOURS[name]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        width = 3 if name == OURS else 1.5
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        for row in mine if name == OURS else front:
            x, y = _place(row)
            size = 5 if name == OURS else 3
            what = (
                f"{name}, {row['setting']}: {row['false_per_device_month']:.3g} false per device-month, "
                f"{100 * (1 - row['found_share']):.2f} % missed"
            )
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{colour}"><title>{escape(what)}</title>'
                "</circle>"
            )
    parts += _legend(names)
    return _svg(parts)


def delays(named: list[tuple[str, NDArray[np.int32]]]) -> str:
    """Share of the deep incursions found by so many pings from the first deep one; a miss is never found."""
    most = 40
    parts = []
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    for share in (0, 25, 50, 75, 100):
        y = _TOP + height * (1 - share / 100)
        parts += [
            f'<line x1="{_LEFT}" y1="{y}" x2="{_LEFT + width}" y2="{y}" stroke="#ddd"/>',
            f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{share} %</text>',
        ]
    for pings in range(0, most + 1, 5):
        x = _LEFT + width * pings / most
        parts.append(f'<text x="{x}" y="{_TOP + height + 18}" text-anchor="middle">{pings}</text>')
    parts.append(
        f'<text x="{_LEFT + width / 2}" y="{_HEIGHT - 10}" text-anchor="middle">'
        "pings, from the first one taken deep inside (0: even before it)</text>"
    )
    for name, taken in named:
        shares = [float(np.mean((taken >= 0) & (taken <= k))) for k in range(most + 1)]
        line = " ".join(
            f"{_LEFT + width * k / most:.1f},{_TOP + height * (1 - share):.1f}"
            for k, share in enumerate(shares)
        )
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{COLOURS[name]}" '
            f'stroke-width="{3 if name == OURS else 1.5}"/>'
        )
    parts += _legend([name for name, _ in named])
    return _svg(parts)


def _front(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The settings that no other of the same way beats in both."""
    front: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda r: (r["false"], -r["found_share"])):
        if not front or row["found_share"] > front[-1]["found_share"]:
            front.append(row)
    return front


def _place(row: dict[str, Any]) -> tuple[float, float]:
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    missed = 100 * (1 - row["found_share"])
    x = _share(row["false_per_device_month"], _LOW_FALSE, _HIGH_FALSE)
    return _LEFT + width * x, _TOP + height * (1 - _share(missed, _LOW_MISSED, _HIGH_MISSED))


def _share(value: float, low: float, high: float) -> float:
    return math.log(min(max(value, low), high) / low) / math.log(high / low)


def _frame() -> list[str]:
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    parts = []
    for false in (_LOW_FALSE, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0):
        x = _LEFT + width * _share(false, _LOW_FALSE, _HIGH_FALSE)
        label = "none" if false == _LOW_FALSE else f"{false:g}"
        parts += [
            f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_TOP + height}" stroke="#ddd"/>',
            f'<text x="{x:.1f}" y="{_TOP + height + 18}" text-anchor="middle">{label}</text>',
        ]
    for missed in (_LOW_MISSED, 0.1, 0.5, 1.0, 10.0, 100.0):
        y = _TOP + height * (1 - _share(missed, _LOW_MISSED, _HIGH_MISSED))
        label = "none" if missed == _LOW_MISSED else f"{missed:g} %"
        dashed = ' stroke-dasharray="5 4"' if missed == 0.5 else ""
        parts += [
            (
                f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_LEFT + width}" y2="{y:.1f}" '
                f'stroke="{"#666" if dashed else "#ddd"}"{dashed}/>'
            ),
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>',
        ]
    parts.append(
        f'<text x="{_LEFT + width / 2}" y="{_HEIGHT - 10}" text-anchor="middle">'
        "false violations in a month of one device</text>"
    )
    parts.append(
        f'<text transform="translate(14 {_TOP + height / 2}) rotate(-90)" text-anchor="middle">'
        "deep incursions missed</text>"
    )
    return parts


def _legend(names: list[str]) -> list[str]:
    x = _WIDTH - _RIGHT + 20
    parts = []
    for k, name in enumerate(names):
        y = _TOP + 12 + 20 * k
        weight = ' font-weight="bold"' if name == OURS else ""
        parts += [
            f'<rect x="{x}" y="{y - 9}" width="12" height="12" fill="{COLOURS[name]}"/>',
            f'<text x="{x + 18}" y="{y + 2}"{weight}>{escape(name)}</text>',
        ]
    return parts


def _svg(parts: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>'
    )
