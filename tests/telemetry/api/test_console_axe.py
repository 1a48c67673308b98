"""Every screen of the console under axe-core's rules for WCAG 2.2 AA: light on a laptop, dark on a phone."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.access.secrets import hash_password
from telemetry.store.keys import KeyRing
from tests.telemetry.api.town import serving
from tools.chromium import Chromium, Page, find_chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed"),
]

AXE = Path(__file__).parents[2] / "vendor" / "axe-core" / "axe.min.js"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"  # of axe-core 4.14.1
STANDARD = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# Colours differ between light and dark, layouts between a laptop and a phone: two looks have all four.
LOOKS = pytest.mark.parametrize(
    "look",
    [{"dark": False}, {"dark": True, "width": 390, "height": 844, "phone": True}],
    ids=["light-1280", "dark-phone"],
)

# What breaks a rule, as lines that name the place.
FOUND = f"""
(async () => {{
  const found = await axe.run(document, {{ runOnly: {json.dumps(STANDARD)} }});
  const why = (node) => (node.any[0] ?? node.all[0] ?? node.none[0])?.message;
  const line = ({{ id, nodes }}) => nodes.map((n) => `${{id}}: ${{n.target}}: ${{why(n)}}`);
  return {{ rules: found.passes.length, broken: found.violations.flatMap(line) }};
}})()
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def axe() -> str:
    script = AXE.read_bytes()
    assert hashlib.sha256(script).hexdigest() == AXE_SHA256
    return script.decode()


def broken(page: Page, axe: str) -> list[str]:
    """What is wrong with the screen that the page shows."""
    if not page.run("!!globalThis.axe"):
        page.run(f"{axe}; 0")
    found = page.run(FOUND)
    assert found["rules"] > 15  # it did look
    return found["broken"]


def screens(page: Page, url: str) -> Iterator[str]:
    """Go from screen to screen; the name of each when it stands."""
    page.open(url)
    page.wait("document.documentElement.dataset.map")
    page.wait("document.querySelectorAll('.alert').length > 0")
    page.wait("document.querySelector('#connection').dataset.state === 'live'")
    yield "fleet and alerts"
    page.run("document.querySelector('input[value=done]').click()")
    page.wait("document.querySelector('#queue-note').innerText.includes('Nothing done')")
    yield "done, empty"
    page.run("document.querySelector('input[value=live]').click()")
    page.wait("document.querySelectorAll('.alert').length > 0")
    page.run("document.querySelector('#help-open').click()")
    yield "help"
    page.run("document.querySelector('#help').close()")
    page.run("document.querySelector('.alert').click()")
    page.wait("!!document.querySelector('#detail a[download]')")
    page.wait("!!document.querySelector('.plot canvas[aria-label]')", 60)
    yield "alert with replay and beliefs"
    page.run("document.querySelector('#resolve').click()")
    page.wait("!document.querySelector('form.resolve').hidden")
    yield "resolving"
    page.run("document.querySelector('.week').open = true")
    page.wait("!!document.querySelector('.week-chart')")
    page.run("document.querySelector('.week details').open = true")
    yield "week"
    page.run("document.querySelector('#leave-open').click()")
    page.wait("document.querySelector('#leave').open")
    yield "leave"
    page.run("document.querySelector('#leave').close()")
    page.key("Escape")
    page.run("document.querySelector('#draw-open').click()")
    page.wait("document.querySelector('#zone-said').textContent.includes('come from files')")
    yield "new zone"
    page.run("document.querySelector('#draw-cancel').click()")
    page.run("document.querySelector('#change-open').click()")
    page.wait("document.activeElement.name === 'id'")
    yield "zone that changes"
    page.run("document.querySelector('#draw-cancel').click()")


@LOOKS
def test_every_screen_keeps_the_rules(filled, chromium, axe, look):
    with serving(filled.url) as url:
        page = chromium.page(**look)
        found = {name: broken(page, axe) for name in screens(page, url)}
        page.close()
    assert len(found) == 9
    assert {name: lines for name, lines in found.items() if lines} == {}


@LOOKS
def test_what_is_shown_while_something_is_missing_keeps_them_too(town, chromium, axe, look):
    found = {}
    page = chromium.page(**look)
    with serving(town.url) as url:
        page.open(url)
        page.wait("document.querySelector('#queue-note').innerText.includes('No alert to do')")
        found["no alert, no device"] = broken(page, axe)
    page.wait("document.querySelector('#queue-note').innerText.includes('Not connected')")
    found["not connected"] = broken(page, axe)
    with serving("postgresql://nobody@127.0.0.1:1/nothing") as url:
        page.open(url)
        page.wait("document.querySelector('#queue-note').innerText.includes('can\\'t be loaded')")
        found["no database"] = broken(page, axe)
    with contextlib.closing(KeyRing.open(town.url, by="tests")) as ring:
        ring.add_account("m.ito", "operator", None, hash_password("four random words here"))
    with serving(town.url) as url:
        page.open(url)
        page.wait("document.querySelector('#log-in').open")
        found["log-in"] = broken(page, axe)
        page.type("m.ito")
        page.run("document.querySelector('#log-in-form').elements.password.value = 'not this one at all'")
        page.run("document.querySelector('#log-in-form button').click()")
        page.wait("document.querySelector('#log-in-problem').textContent !== ''")
        found["log-in refused"] = broken(page, axe)
    page.close()
    assert {name: lines for name, lines in found.items() if lines} == {}
