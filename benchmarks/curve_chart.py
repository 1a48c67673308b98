"""The curves as SVG: logarithmic plots side by side, with the floor that the machine sets."""

from __future__ import annotations

import math
from html import escape
from typing import Any

WIDTH, HEIGHT, LEFT, TOP, STRIDE = 300, 220, 60, 40, 380
INK, GRID, FLOOR = "#0b6e4f", "#d7dce1", "#b3541e"


def svg(report: dict[str, Any]) -> str:
    """Nanoseconds a ping by zones and by vertices."""
    curves = [
        ("zones", [(row["zones"], row["ns_per_ping"]) for row in report["by_zones"]]),
        ("vertices of one polygon", [(row["vertices"], row["ns_per_ping"]) for row in report["by_vertices"]]),
    ]
    floor = report["roofline"]["one_read_ns"]
    costs = [floor, *(cost for _, points in curves for _, cost in points)]
    low, high = min(costs) / 1.5, max(costs) * 1.5
    panels = [
        _Panel(LEFT + STRIDE * number, points, low, high).draw(title, floor)
        for number, (title, points) in enumerate(curves)
    ]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 300" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n'
    )


class _Panel:
    def __init__(self, left: int, points: list[tuple[int, float]], low: float, high: float) -> None:
        self.left, self.points, self.low, self.high = left, points, low, high

    def draw(self, title: str, floor: float) -> str:
        parts = [
            f'<text x="{self.left}" y="24" font-weight="bold">nanoseconds a ping, by {escape(title)}</text>'
        ]
        for exponent in range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1):
            y = self._y(10.0**exponent)
            parts += [self._rule(y, GRID), f'<text x="{self.left - 6}" y="{y + 4}" text-anchor="end">']
            parts.append(f"{10.0**exponent:g}</text>")
        y = self._y(floor)
        parts.append(self._rule(y, FLOOR, dashed=True))
        parts.append(
            f'<text x="{self.left + WIDTH}" y="{y - 4}" text-anchor="end" fill="{FLOOR}">'
            f"one random read: {floor:.2g}</text>"
        )
        line = " ".join(f"{self._x(x)},{self._y(cost)}" for x, cost in self.points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{INK}" stroke-width="2"/>')
        for x, cost in self.points:
            at, up = self._x(x), self._y(cost)
            parts.append(f'<circle cx="{at}" cy="{up}" r="3" fill="{INK}"/>')
            parts.append(f'<text x="{at}" y="{up - 8}" text-anchor="middle">{cost:.3g}</text>')
            power = round(math.log10(x))
            parts.append(f'<text x="{at}" y="{TOP + HEIGHT + 20}" text-anchor="middle">10^{power}</text>')
        return "".join(parts)

    def _rule(self, y: int, colour: str, *, dashed: bool = False) -> str:
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        return (
            f'<line x1="{self.left}" x2="{self.left + WIDTH}" y1="{y}" y2="{y}" stroke="{colour}"{dashes}/>'
        )

    def _x(self, value: float) -> int:
        first, last = math.log10(self.points[0][0]), math.log10(self.points[-1][0])
        return round(self.left + WIDTH * (math.log10(value) - first) / max(1e-9, last - first))

    def _y(self, cost: float) -> int:
        share = math.log10(cost / self.low) / math.log10(self.high / self.low)
        return round(TOP + HEIGHT * (1 - share))
