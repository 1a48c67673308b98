"""Make the pictures of the console in docs/images from a running ``ringfence up``.

    .venv/bin/python tools/screenshots.py [URL] [DIRECTORY]

It only looks: no alert is acknowledged. It needs Chromium and at least one alert to do.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tools.chromium import Chromium, Page, PageError

ALERT_TIMEOUT_S = 120.0  # a fleet that has just started raises its first alert within a minute
MAP_SETTLE_S = 3.0  # the flight to the device takes 0.9 s; software WebGL draws the end of it late

# An alert about a zone shows more than one about a strap.
PICK = """
(() => {
  const alerts = [...document.querySelectorAll(".alert")];
  (alerts.find((alert) => alert.innerText.includes("zone")) ?? alerts[0]).classList.add("picked");
})()
"""


HALF_WAY = """
(() => {
  document.querySelector(".history").scrollIntoView();
  const slider = document.querySelector(".history input");
  slider.value = String(Math.floor(slider.max / 2));
  slider.dispatchEvent(new Event("input"));
})()
"""


CHOOSE = """
(async () => {
  const { features } = await (await fetch("/api/v1/zones")).json();
  const zone = features.find((zone) => zone.geometry.type === "Polygon") ?? features[0];
  const { id } = document.querySelector("#zone-form").elements;
  id.value = zone.properties.id;
  id.dispatchEvent(new Event("change"));
})()
"""


def main() -> None:
    """Take each picture in a tab of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8750")
    parser.add_argument("directory", nargs="?", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    with Chromium() as browser:
        for name, options in (
            ("console", {}),
            ("console-dark", {"dark": True}),
            ("console-phone", {"width": 390, "height": 844, "phone": True}),
        ):
            page = browser.page(**options)
            try:
                look(page, arguments.url, arguments.directory, name)
            except PageError as error:
                sys.exit(f"{name}: {error}")
            finally:
                page.close()


def look(page: Page, url: str, directory: Path, name: str) -> None:
    """The fleet, an alert, its replay and week, and the forms: a leave, a new zone, one that changes."""
    page.open(url)
    page.wait("document.querySelectorAll('.alert').length > 0", ALERT_TIMEOUT_S)
    time.sleep(MAP_SETTLE_S)
    save(page, directory / f"{name}.png")
    page.run(PICK)
    page.click(".alert.picked")
    page.wait("!!document.querySelector('#detail a[download]')")
    time.sleep(MAP_SETTLE_S)
    save(page, directory / f"{name}-alert.png")
    page.wait("!!document.querySelector('.plot canvas')")
    page.run(HALF_WAY)
    time.sleep(MAP_SETTLE_S / 3)
    save(page, directory / f"{name}-replay.png")
    page.run("document.querySelector('.week').open = true")
    page.wait("!!document.querySelector('#leave-open')")
    page.run("document.querySelector('.week details')?.setAttribute('open', '')")
    page.run("document.querySelector('.week').scrollIntoView()")
    save(page, directory / f"{name}-week.png")
    page.run("document.querySelector('#leave-open').click()")
    save(page, directory / f"{name}-leave.png")
    page.run("document.querySelector('#leave').close()")
    page.key("Escape")
    page.run("document.querySelector('#draw-open').click()")
    page.wait("document.querySelector('#zone-said').textContent.startsWith('Click')")
    save(page, directory / f"{name}-draw.png")
    page.run("document.querySelector('#draw-cancel').click()")
    page.run("document.querySelector('#change-open').click()")
    page.wait("document.querySelector('#zone-said').textContent.startsWith('Choose')")
    page.run(CHOOSE)
    page.wait("/^Dra/.test(document.querySelector('#zone-said').textContent)")
    time.sleep(MAP_SETTLE_S / 3)
    save(page, directory / f"{name}-change.png")


def save(page: Page, path: Path) -> None:
    """Write a picture and say so."""
    page.screenshot(path)
    print(f"{path}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
