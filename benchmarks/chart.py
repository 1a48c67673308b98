"""A bar chart of rates as SVG, written by hand: one panel for each work set, logarithmic."""

from __future__ import annotations

import math
from html import escape
from typing import Any

WIDTH = 760
LABEL = 220
BAR = 20


def svg(rows: list[dict[str, Any]]) -> str:
    timed = [row for row in rows if "mpings_per_s" in row]
    low = min((row["mpings_per_s"] for row in timed), default=0.01) / 2
    high = max((row["mpings_per_s"] for row in timed), default=1.0)
    parts = []
    y = 30
    name = None
    for row in timed:
        if row["set"] != name:
            name = row["set"]
            y += 14
            parts.append(
                f'<text x="8" y="{y}" font-weight="bold">{escape(name)}, million pings a second</text>'
            )
            y += 10
        width = (WIDTH - LABEL - 80) * math.log(row["mpings_per_s"] / low) / math.log(high / low)
        colour = "#0b6e4f" if row["who"] == "ringfence" else "#9aa5b1"
        parts.append(f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(row["who"])}</text>')
        parts.append(f'<rect x="{LABEL}" y="{y}" width="{width:.0f}" height="{BAR - 4}" fill="{colour}"/>')
        parts.append(f'<text x="{LABEL + width + 6:.0f}" y="{y + 13}">{row["mpings_per_s"]:.3g}</text>')
        y += BAR
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 20}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="8" y="18">One core; bars are logarithmic</text>{"".join(parts)}</svg>\n'
    )
