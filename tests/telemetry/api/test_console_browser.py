"""The console in a headless Chromium over a real server and database."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from telemetry.access.secrets import hash_password
from telemetry.store.keys import KeyRing
from tests.telemetry.api.town import MINUTE_US, START_US, serving
from tools.chromium import Chromium, Page, find_chromium

PASSWORD = "four random words here"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium) -> Iterator[Page]:
    page = chromium.page()
    yield page
    page.close()


def opened(page: Page, url: str, query: str = "") -> Page:
    page.open(f"{url}/{query}")
    page.wait("document.documentElement.dataset.map")
    page.wait("document.querySelector('#connection').dataset.state === 'live'")
    return page


def text(page: Page, selector: str) -> str:
    return page.run(f"document.querySelector({selector!r})?.innerText ?? ''")


def test_an_alert_appears_by_itself_is_acknowledged_and_resolved(town, town_api, page):
    town.commit(town.walk("a1", 20))
    url = str(town_api.base_url).rstrip("/")
    opened(page, url)
    page.wait("document.querySelector('#queue-note').innerText.includes('No alert to do')")
    page.run("window.loadedOnce = true")

    alert_id = town.raise_alert("a1", opened_us=START_US + 5 * MINUTE_US)
    page.wait("document.querySelectorAll('.alert').length === 1")
    assert page.run("window.loadedOnce") is True  # without a reload
    assert "a1" in text(page, ".alert")
    assert "99.8 % sure" in text(page, ".alert")
    assert "New critical alert: a1" in page.run("document.querySelector('#announce').textContent")
    assert page.run("document.title").startswith("(1)")

    page.click(".alert")
    page.wait("document.querySelector('#detail').innerText.includes('20 fixes')")
    # the violation lasts, and what is said of it is of its opening
    terms = page.run("[...document.querySelectorAll('#detail dt')].map((e) => e.textContent)")
    assert terms[terms.index("Ended") :][:3] == ["Ended", "As of", "Sure"]
    page.click("#acknowledge")
    page.wait("document.querySelector('#detail .badge').textContent.includes('acknowledged')")
    assert town_api.get(f"/api/v1/alerts/{alert_id}").json()["state"] == "acknowledged"

    page.click("#resolve")
    page.click("input[value=excused]")
    page.run("document.querySelector('form.resolve textarea').focus()")
    page.type("hospital visit")
    page.click("form.resolve button")
    page.wait("document.querySelectorAll('.alert').length === 0")
    log = town_api.get(f"/api/v1/alerts/{alert_id}").json()["log"]
    assert [(step["change"], step["note"]) for step in log] == [
        ("opened", None),
        ("acknowledged", None),
        ("resolved", "hospital visit"),
    ]
    assert page.errors == []


def test_the_details_of_the_selected_device_follow_it(town, town_api, page):
    town.commit(town.walk("a1", 20))
    town.raise_alert("a1", opened_us=START_US + 5 * MINUTE_US)
    opened(page, str(town_api.base_url).rstrip("/"))
    page.click(".alert")
    page.wait("document.querySelector('#detail').innerText.includes('20 fixes')")
    moved = town.walk("a1", 1, from_us=START_US + 30 * MINUTE_US)
    town.commit(replace(moved, battery_pct=np.array([7], np.uint8)))
    page.wait("document.querySelector('.signals').innerText.includes('7 %')")
    assert page.errors == []


def test_keys_walk_and_acknowledge(town, town_api, page):
    for i, severity in enumerate(("low", "critical", "high")):
        town.commit(town.walk(f"d{i}", 1))
        town.raise_alert(f"d{i}", severity=severity, opened_us=START_US + i * MINUTE_US)
    opened(page, str(town_api.base_url).rstrip("/"))
    page.wait("document.querySelectorAll('.alert').length === 3")
    shown = page.run("[...document.querySelectorAll('.alert .who')].map((e) => e.textContent)")
    assert shown == ["d1", "d2", "d0"]  # critical, high, low
    for who in ("d1", "d2"):
        page.key("j")
        page.wait(f"document.querySelector('#detail-title')?.textContent === '{who}'")
    page.key("k")
    page.wait("document.querySelector('#detail-title').textContent === 'd1'")
    page.wait("!!document.querySelector('#detail .log')")
    page.key("a")
    page.wait("document.querySelector('#detail .badge').textContent.includes('acknowledged')")
    page.run("globalThis.clock = Date.now; Date.now = () => clock() + 3 * 86_400_000")
    # nothing came, and time went on
    page.wait("/[3-9] d/.test(document.querySelector('#detail .log').innerText)", 8)
    page.key("Escape")
    page.wait("document.querySelector('#detail').hidden")
    assert page.errors == []


def test_the_map_draws_devices_where_they_are(town, town_api, page):
    for i in range(5):
        town.commit(town.walk(f"d{i}", 1, lat=35.2 + i / 50, lon=-80.8))
    town.raise_alert("d4")
    opened(page, str(town_api.base_url).rstrip("/"))
    page.wait("document.querySelector('#counts').textContent === '5 devices'")
    assert page.run("document.documentElement.dataset.map") == "webgl"
    page.wait("!!document.querySelector('canvas.maplibregl-canvas')")
    town.commit(town.walk("new", 1, lat=35.3))  # moves by itself
    page.wait("document.querySelector('#counts').textContent === '6 devices'")
    assert page.errors == []


def test_without_webgl_the_plain_map_does_the_work(town, town_api):
    town.commit(town.walk("a1", 20))
    town.raise_alert("a1", opened_us=START_US + 5 * MINUTE_US)
    with Chromium(webgl=False) as browser:
        page = opened(browser.page(), str(town_api.base_url).rstrip("/"))
        assert page.run("document.documentElement.dataset.map") == "canvas"
        page.click(".alert")
        page.wait("document.querySelector('#detail').innerText.includes('20 fixes')")
        inked = (
            "(() => { const c = document.querySelector('canvas'); const d = c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data; const seen = new Set();"
            " for (let i = 0; i < d.length; i += 4) seen.add((d[i] << 16) | (d[i + 1] << 8) | d[i + 2]);"
            " return seen.has(0xb3261e); })()"
        )
        page.wait(inked)  # the colour of a device with an alert
        assert page.errors == []


def test_the_page_finds_its_server_again_and_has_missed_nothing(town, page, eventually):
    with serving(town.url) as url:
        opened(page, url)
        port = int(url.rpartition(":")[2])
    page.wait("document.querySelector('#connection').dataset.state === 'connecting'")
    town.raise_alert("a1")
    with serving(town.url, port=port):
        page.wait("document.querySelector('#connection').dataset.state === 'live'", timeout_s=40)
        page.wait("document.querySelectorAll('.alert').length === 1")


def test_without_a_database_the_page_says_so_and_not_that_all_is_well(page):
    with serving("postgresql://nobody@127.0.0.1:1/nothing") as url:
        page.open(url)
        page.wait("!document.querySelector('#banner').hidden")
        assert "the database is not available" in text(page, "#banner")
        assert "Trying again" in text(page, "#banner")
        page.wait("document.querySelector('#queue-note').innerText.includes('can\\'t be loaded')")
    page.wait("document.querySelector('#banner').innerText.includes('Check that ringfence up is running')")


def test_an_empty_list_is_no_good_news_while_the_server_is_away(town, page):
    with serving(town.url) as url:
        opened(page, url)
        page.wait("document.querySelector('#queue-note').innerText.includes('No alert to do')")
    page.wait("document.querySelector('#queue-note').innerText.includes('Not connected')")


def test_a_phone_sees_the_map_above_the_alerts_and_nothing_runs_over(filled, chromium):
    with serving(filled.url) as url:
        page = opened(chromium.page(width=390, height=844, phone=True), url)
        page.wait("document.querySelectorAll('.alert').length > 0")
        boxes = page.run(
            "['.map', '#queue'].map((s) => document.querySelector(s).getBoundingClientRect().toJSON())"
        )
        assert boxes[0]["bottom"] <= boxes[1]["top"] + 1
        assert boxes[0]["height"] > 250
        assert page.run("document.documentElement.scrollWidth") <= 390
        page.click(".alert")
        page.wait("!!document.querySelector('#acknowledge')")
        box = page.run("document.querySelector('#acknowledge').getBoundingClientRect().toJSON()")
        assert 0 <= box["left"] < box["right"] <= 390
        assert box["height"] >= 40  # a thumb's size
        page.close()


def test_the_smallest_phone_shows_every_button_while_it_reconnects(town, chromium):
    with serving(town.url) as url:
        page = opened(chromium.page(width=320, height=640, phone=True), url)
    page.wait("document.querySelector('#connection').innerText.includes('Reconnecting')")
    assert page.run("document.querySelector('#help-open').getBoundingClientRect().right") <= 320
    page.close()


NAMELESS = """
[...document.querySelectorAll(
  'button, input, select, textarea, summary, a[href], [role=region], canvas')].filter((e) =>
  e.checkVisibility() && !(e.getAttribute('aria-label') || e.labels?.length || e.innerText?.trim() || e.title
    || e.getAttribute('aria-labelledby'))).map((e) => e.outerHTML.slice(0, 120))
"""


@pytest.mark.parametrize("dark", [False, True])
def test_everything_has_a_name_and_text_can_be_read(filled, chromium, dark):
    with serving(filled.url) as url:
        page = opened(chromium.page(dark=dark), url)
        page.wait("document.querySelectorAll('.alert').length > 0")
        page.click(".alert")
        page.wait("!!document.querySelector('#detail a[download]')")
        page.key("r")
        page.wait("!document.querySelector('form.resolve').hidden")
        page.wait("!!document.querySelector('.plot canvas[aria-label]')")
        page.run("document.querySelector('.week').open = true")
        page.wait("!!document.querySelector('.week-chart')")
        page.run("document.querySelector('.week details').open = true")
        page.run("document.querySelector('#change-open').click()")
        page.wait("document.activeElement.name === 'id'")
        assert page.run(NAMELESS) == []
        assert page.run("document.documentElement.dataset.theme") == ("dark" if dark else "light")
        worst = page.run(CONTRAST)
        assert worst["ratio"] >= 4.5, worst
        page.close()


# The least contrast of any visible text against the nearest painted ground below it (WCAG 2.2, 1.4.3).
CONTRAST = """
(() => {
  const parse = (c) => (c.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => {
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.99) return c;
    }
    return [255, 255, 255];
  };
  let worst = { ratio: 99 };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !e.checkVisibility() || e.closest('#map, .unseen, noscript, dialog:not([open])')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((p, q) => q - p);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst.ratio) worst = { ratio, text, at: e.className };
  }
  return worst;
})()
"""


def opened_week(page: Page, url: str) -> None:
    opened(page, url)
    page.click(".alert")
    page.wait("!!document.querySelector('#detail a[download]')")
    # the server answers for the beliefs before it is stopped
    page.wait("!document.querySelector('.history > .small').textContent.startsWith('Working')", timeout_s=120)
    page.run("document.querySelector('.week').open = true")
    page.wait("!!document.querySelector('.week-chart')")


def test_the_week_shows_hours_and_a_leave_is_granted_and_revoked(town, page):
    town.commit(town.walk("a1", 3))
    town.raise_alert("a1")
    with serving(town.url, zones_read_only=False) as url:
        opened_week(page, url)
        assert page.run("document.querySelectorAll('.week-chart .lanes').length") == 7
        assert page.run("document.querySelectorAll('.week-chart .span.inclusion').length") == 14  # two a day
        assert "00:00–06:00, 20:00–24:00" in page.run("document.querySelector('.week table').textContent")
        assert "The whole week: no-schools, strap." in text(page, ".week-body")

        page.run("document.querySelector('#leave-open').click()")
        page.wait("document.querySelector('#leave').open")
        page.run("""(() => {
          const { from, until, rule, reason } = document.querySelector('#leave-form').elements;
          from.value = '2030-01-08T10:00'; until.value = '2030-01-07T18:00';
          rule.value = 'curfew'; reason.value = 'hospital';
        })()""")
        page.run("document.querySelector('#leave-form button[value=grant]').click()")
        page.wait("document.querySelector('#leave-problem').textContent.includes('until')")  # it ends before
        page.run("document.querySelector('#leave-form').elements.until.value = '2030-01-09T18:00'")
        page.run("document.querySelector('#leave-form button[value=grant]').click()")
        page.wait("document.querySelector('.leaves')?.innerText.includes('hospital')")
        (leave,) = json.loads(page.run("fetch('/api/v1/leaves').then((r) => r.text())"))["items"]
        assert (leave["subjects"], leave["rules"], leave["from"][:10]) == (
            ["device:a1"],
            ["curfew"],
            "2030-01-08",
        )
        page.run("document.querySelector('.leaves button').click()")
        page.wait("!document.querySelector('.leaves')")
        page.wait("document.querySelector('#week-said').textContent.includes('revoked')")
        assert json.loads(page.run("fetch('/api/v1/leaves').then((r) => r.text())"))["items"] == []
        assert [e for e in page.errors if "422" not in e] == []


def test_rules_from_files_are_not_changed_and_the_form_says_why(filled, page):
    with serving(filled.url) as url:
        opened_week(page, url)
        page.run("document.querySelector('#leave-open').click()")
        page.run("""(() => {
          const { from, until } = document.querySelector('#leave-form').elements;
          from.value = '2030-01-08T10:00'; until.value = '2030-01-09T10:00';
        })()""")
        page.run("document.querySelector('#leave-form button[value=grant]').click()")
        page.wait("document.querySelector('#leave-problem').textContent.includes('ringfence up --rules')")
        page.key("Escape")
        page.run("document.querySelector('#leave').close()")
        page.run("document.querySelector('#draw-open').click()")
        page.wait("document.querySelector('#zone-said').textContent.includes('come from files')")


def test_who_must_log_in_is_asked_and_a_wrong_password_is_explained(town, page):
    with contextlib.closing(KeyRing.open(town.url, by="tests")) as ring:
        ring.add_account("m.ito", "operator", None, hash_password(PASSWORD))
    with serving(town.url) as url:
        page.open(url)
        page.wait("document.querySelector('#log-in')?.open")
        assert page.run("document.activeElement.name") == "name"
        page.type("m.ito")
        assert tabbed(page) == "password"
        page.type("not the password at all")
        page.key("Escape")  # behind the dialog there is nothing to see
        assert page.run("document.querySelector('#log-in').open")
        page.run("document.querySelector('#log-in-form button').click()")
        page.wait("document.querySelector('#log-in-problem').textContent !== ''")
        assert page.run("document.activeElement.name") == "password"  # emptied, to be typed again
        page.type(PASSWORD)
        page.run("document.querySelector('#log-in-form button').click()")
        page.wait("document.querySelector('#connection')?.dataset.state === 'live'")
        assert not page.run("document.querySelector('#log-in').open")
        page.wait("document.querySelector('#queue-note').innerText.includes('No alert to do')")


def test_the_keyboard_reaches_the_parts_of_a_device_page_in_their_order(town, page):
    town.commit(town.walk("a1", 3))
    town.raise_alert("a1")
    with serving(town.url, zones_read_only=False) as url:
        opened_week(page, url)
        page.run("document.querySelector('.week > summary').focus()")
        assert [tabbed(page) for _ in range(5)] == [
            "week-before",
            "week-after",
            "week-table",
            "leave-open",
            "locate",
        ]
        page.run("document.querySelector('#leave-open').focus()")
        page.run("document.querySelector('#leave-open').click()")
        assert page.run("document.activeElement.name") == "from"
        page.key("Escape")
        page.wait("!document.querySelector('#leave').open")
        assert page.run("document.activeElement.id") == "leave-open"  # back where it was opened
        assert not page.run("document.querySelector('#detail').hidden")  # and Escape closed the dialog alone
        page.run("document.querySelector('#draw-open').click()")
        page.wait("document.activeElement.name === 'id'")
        page.wait("document.querySelector('#zone-said').textContent.startsWith('Click the corners')")
        reached = [tabbed(page) for _ in range(8)]
        assert reached == ["name", "geometry", "radius", "require", "subjects", "severity", "save", "check"]
        page.key("Escape")
        page.wait("document.querySelector('#zone-form').hidden")
        assert page.run("document.activeElement.id") == "draw-open"


def tabbed(page: Page) -> str:
    """Press Tab; what the focus is on then, by the name that it has in the page."""
    page.key("Tab")
    return str(
        page.run(
            "(({name, dataset, value, id}) => name || dataset.focus || value || id)(document.activeElement)"
        )
    )
