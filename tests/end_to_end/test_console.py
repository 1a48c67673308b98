"""An operator's browser before a real ``ringfence up``: a zone is drawn, a ping inside it raises an alert."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from tests.end_to_end.conftest import HOME
from tools.chromium import Chromium, Page, find_chromium

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed"),
]


@pytest.fixture
def page() -> Iterator[Page]:
    with Chromium() as browser:
        page = browser.page()
        yield page
        page.close()


def now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def press(page: Page, x: float, y: float) -> None:
    """A click at a place of the page, as a mouse makes it."""
    page.command("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    for kind in ("mousePressed", "mouseReleased"):
        page.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def fill(page: Page, name: str, value: str) -> None:
    page.run(f"document.querySelector('#zone-form [name={name}]').value = {value!r}")


def test_a_drawn_zone_raises_an_alert_that_is_worked_on_and_found_in_the_log(engines, clients, page):
    engine = engines()
    device = clients(engine.mqtt_url, "a17")
    lat, lon = HOME
    device.ping("a17", seq=1, time=now(), lat=lat, lon=lon, accuracy_m=8)
    page.open(engine.http_url)
    page.wait("document.querySelector('#connection')?.dataset.state === 'live'")
    page.wait("document.querySelector('#counts').textContent === '1 device'")
    page.wait("!document.querySelector('#draw-open').hidden")
    page.run("document.querySelector('#draw-open').click()")
    page.wait("document.querySelector('#draw-circle').getAttribute('aria-pressed') !== null")
    page.wait("document.querySelector('#zone-said').textContent.startsWith('Click the corners')")
    page.click("#draw-circle")
    page.wait("document.querySelector('#zone-said').textContent.startsWith('Click the middle')")
    box = page.run("document.querySelector('#map').getBoundingClientRect().toJSON()")
    x, y = box["left"] + box["width"] / 2, box["top"] + box["height"] / 2

    def circle() -> None:
        press(page, x, y)
        page.command("Input.dispatchMouseEvent", type="mouseMoved", x=x + 60, y=y)
        press(page, x + 120, y)

    page.until(circle, "document.querySelector('#zone-form [name=geometry]').value.includes('Point')")
    fill(page, "id", "market")
    fill(page, "name", "The market")
    page.run("document.querySelector('#zone-form button[value=save]').click()")
    page.wait("document.querySelector('#zone-form').hidden")
    zones = httpx.get(f"{engine.http_url}/api/v1/versions/3").json()["zones"]["features"]
    assert [zone["properties"]["id"] for zone in zones] == ["market"]
    assert zones[0]["geometry"]["type"] == "Point"
    middle_lon, middle_lat = zones[0]["geometry"]["coordinates"]

    deadline = time.monotonic() + 60
    seq = 2
    page.run("window.loadedOnce = true")
    while not page.run("document.querySelectorAll('.alert').length"):
        assert time.monotonic() < deadline, engine.output
        device.ping("a17", seq=seq, time=now(), lat=middle_lat, lon=middle_lon, accuracy_m=8)
        seq += 1
    assert page.run("window.loadedOnce") is True  # without a reload
    assert "market" in page.run("document.querySelector('.alert').innerText")

    page.click(".alert")
    page.wait("!document.querySelector('.history').hidden")
    page.wait("!!document.querySelector('.plot canvas')")
    page.key("a")
    page.wait("document.querySelector('#detail .badge').textContent.includes('acknowledged')")
    page.key("r")
    page.click("input[value=real]")
    page.click("form.resolve button")
    page.wait("document.querySelectorAll('.alert').length === 0")
    (alert,) = engine.items("alerts")
    log = engine.get(f"alerts/{alert['alert_id']}")["log"]
    assert [step["change"] for step in log if step["change"] != "updated"] == [
        "opened",
        "acknowledged",
        "resolved",
    ]
    assert page.errors == []


def test_a_zone_can_be_made_without_a_mouse_and_a_bad_one_is_explained(engines, page):
    engine = engines()
    page.open(engine.http_url)
    page.wait("document.querySelector('#connection')?.dataset.state === 'live'")
    page.wait("!document.querySelector('#draw-open').hidden")
    page.run("document.querySelector('#draw-open').click()")
    page.wait("document.activeElement.name === 'id'")
    fill(page, "id", "depot")
    fill(page, "geometry", '{"type": "Point", "coordinates": [-80.84, 35.22]}')
    page.run("document.querySelector('#zone-form button[value=check]').click()")
    page.wait("document.querySelector('#zone-said').textContent.includes('radius_m')")
    fill(page, "radius", "150")
    page.run("document.querySelector('#zone-form button[value=check]').click()")
    page.wait("document.querySelector('#zone-said').textContent.includes('can be saved')")
    page.run("document.querySelector('#zone-form button[value=save]').click()")
    page.wait("document.querySelector('#zone-form').hidden")
    assert engine.get("versions")["items"][0]["saved_by"] == "local operator"
    # what is scheduled is adopted by the engine that runs, and by the next one
    assert engine.stop() == 0
    again = engines(data_dir=engine.data_dir)
    deadline = time.monotonic() + 30
    while again.get("rules")["version"] < 3:  # it takes effect five seconds after it was saved
        assert time.monotonic() < deadline
    assert [rule["id"] for rule in again.get("rules")["rules"]["rules"]] == ["depot-outside"]
