"""Hosts, headers, the page's files, probes."""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from telemetry.console import VENDOR_DIR
from tests.telemetry.api.town import Fine, serving


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8750", "127.0.0.1.evil.example", "10.0.0.1", "[::", ""]
)
def test_a_foreign_host_reads_nothing(api, problem, host):
    for path in ("/", "/api/v1/devices", "/metrics"):
        assert problem(api.get(path, headers={"Host": host}), 403)["type"].endswith("foreign-host")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8750", "127.0.0.1", "127.9.9.9:1", "[::1]:8750", "LOCALHOST"]
)
def test_names_of_this_machine_are_fine(api, host):
    assert api.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_proxy_can_have_its_name_allowed(filled, problem):
    with serving(filled.url, allowed_hosts=["console.example"]) as url, httpx.Client(base_url=url) as client:
        assert client.get("/healthz", headers={"Host": "console.example"}).status_code == 200
        problem(client.get("/healthz", headers={"Host": "other.example"}), 403)


@pytest.mark.parametrize("path", ["/", "/api/v1/devices", "/nothing", "/console/main.js", "/api/v1/alerts/x"])
def test_every_answer_has_the_security_headers(api, path):
    headers = api.get(path, headers={"Origin": "https://evil.example"}).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["worker-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control-")]


def test_a_tile_server_is_allowed_where_it_is_set(filled):
    tiles = "https://tiles.example/{z}/{x}/{y}.png"
    with serving(filled.url, tile_url=tiles) as url, httpx.Client(base_url=url) as client:
        answer = client.get("/")
        assert client.get("/console/settings.json").json()["tile_url"] == tiles
    assert "img-src 'self' data: blob: https://tiles.example;" in answer.headers["content-security-policy"]


def test_the_page_and_all_that_it_names_are_served_with_their_types(api):
    page = api.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    types = {
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "mjs": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
    wanted = set(re.findall(r'(?:href|src)="(/console/[^"]+)"', page.text))
    seen = set()
    while wanted:
        path = wanted.pop()
        seen.add(path)
        answer = api.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == types[path.rpartition(".")[2]]
        if path.endswith(".js"):
            imports = re.findall(r'from "\./([a-z-]+\.js)"', answer.text)
            wanted |= {f"/console/{name}" for name in imports} - seen
            wanted |= set(re.findall(r'"(/console/vendor/[^"]+\.mjs)"', answer.text)) - seen
    assert {"/console/main.js", "/console/gl-map.js", "/console/canvas-map.js"} < seen
    assert "/console/vendor/maplibre-gl/maplibre-gl.mjs" in seen


def test_the_page_names_no_other_server(api):
    for path in ("/", "/console/console.css", "/console/main.js"):
        assert not re.findall(r"(?:src|url|import)\W{1,3}https?://", api.get(path).text)


def test_an_unchanged_file_is_not_sent_again(api):
    first = api.get("/console/main.js")
    again = api.get("/console/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_vendored_files_are_what_their_manifest_says():
    manifest = json.loads((VENDOR_DIR / "manifest.json").read_text())
    named = {}
    for package in manifest.values():
        named |= package["files"]
    there = {p.relative_to(VENDOR_DIR).as_posix() for p in VENDOR_DIR.glob("*/*")}
    assert there == set(named)
    for path, digest in named.items():
        assert hashlib.sha256((VENDOR_DIR / path).read_bytes()).hexdigest() == digest, path


def test_probes_tell_life_and_readiness_apart(filled, problem):
    health = Fine()
    with serving(filled.url, health) as url, httpx.Client(base_url=url) as client:
        assert client.get("/healthz").json() == {"status": "alive", "share": 0}
        assert client.get("/readyz").json() == {"status": "ready"}
        health.reasons = ["SUBACK 0x80 for ringfence/v1/+/+/pings: raise max_ack_pending"]
        assert problem(client.get("/readyz"), 503)["reasons"] == health.reasons
        assert client.get("/healthz").status_code == 200
        assert (
            client.get("/metrics").text == "# TYPE ringfence_pings_total counter\nringfence_pings_total 3.0\n"
        )
        assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


def test_without_a_database_all_is_unavailable_but_the_process_lives(problem):
    gone = "postgresql://nobody@127.0.0.1:1/nothing"
    with serving(gone) as url, httpx.Client(base_url=url, timeout=20) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/").status_code == 200
        reasons = problem(client.get("/readyz"), 503)["reasons"]
        assert len(reasons) == 1
        paths = ("devices", "positions", "alerts/17", "zones", "rules", "stream", "devices/a1/track")
        with ThreadPoolExecutor(8) as pool:  # each waits two seconds for the database
            step = pool.submit(client.post, "/api/v1/alerts/17/acknowledge", json={})
            answers = [*pool.map(client.get, (f"/api/v1/{path}" for path in paths)), step.result()]
        for answer in answers:
            assert problem(answer, 503)["type"].endswith("database-unavailable")
            assert int(answer.headers["retry-after"]) > 0


def test_behind_a_proxy_nobody_is_the_local_user(filled):
    options = {"allowed_hosts": ["console.example"], "keys_needed": True}
    with serving(filled.url, **options) as url, httpx.Client(base_url=url) as client:
        for host in ("console.example", "localhost"):
            assert client.get("/api/v1/devices", headers={"Host": host}).status_code == 401
        assert client.get("/healthz").status_code == 200


def test_off_loopback_readiness_tells_strangers_no_reasons(filled, problem):
    health = Fine()
    health.reasons = ["the broker at 10.0.0.7:1883 refuses the password"]
    with serving(filled.url, health, loopback=False) as url, httpx.Client(base_url=url) as client:
        answer = problem(client.get("/readyz"), 503)
        assert answer["reasons"] == ["the log of `ringfence up` says why"]
        assert "10.0.0.7" not in str(answer)
        health.reasons = []
        assert client.get("/readyz").json() == {"status": "ready"}
