"""Measure how long an alert takes from its commit to the operator's screen, over a running ``ringfence up``.

    .venv/bin/python tools/commit_to_pixels.py [URL] [--seconds 60]

It only looks, at every alert that opens meanwhile. The beginning is the time in the alert's log, which the
engine takes just before it commits; the end is the second animation frame after the alert came into the
page, when the first has been painted. Both clocks are this machine's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.chromium import Chromium

WATCH = """
(() => {
  globalThis.shown = {};
  const known = new Set([...document.querySelectorAll("#alerts > li")].map((item) => item.dataset.key));
  new MutationObserver(() => {
    for (const { dataset: { key } } of document.querySelectorAll("#alerts > li")) {
      if (!key || known.has(key)) continue;
      known.add(key);
      requestAnimationFrame(() => requestAnimationFrame(() => (shown[key] = Date.now())));
    }
  }).observe(document.querySelector("#alerts"), { childList: true, subtree: true, attributes: true });
})()
"""


def main() -> None:
    """Watch, then print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8750")
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    with Chromium() as browser:
        page = browser.page()
        page.open(arguments.url)
        page.wait("document.querySelector('#connection')?.dataset.state === 'live'")
        page.wait("document.querySelector('#queue-body').getAttribute('aria-busy') === 'false'")
        page.run(WATCH)
        time.sleep(arguments.seconds)
        shown: dict[str, float] = page.run("shown")
    taken_ms = sorted(at - committed_ms(arguments.url, alert_id) for alert_id, at in shown.items())
    if not taken_ms:
        sys.exit(f"no alert opened within {arguments.seconds:g} s; let it watch longer (--seconds)")
    print(
        f"{len(taken_ms)} alerts, commit to pixels in ms: median {statistics.median(taken_ms):.0f}, "
        f"least {taken_ms[0]:.0f}, most {taken_ms[-1]:.0f}"
    )


def committed_ms(url: str, alert_id: str) -> float:
    """When the alert was first recorded, milliseconds since 1970."""
    with urllib.request.urlopen(f"{url}/api/v1/alerts/{alert_id}", timeout=20) as answer:  # noqa: S310
        log = json.load(answer)["log"]
    return datetime.fromisoformat(log[0]["time"]).timestamp() * 1000


if __name__ == "__main__":
    main()
