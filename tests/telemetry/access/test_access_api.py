"""Who is let in, what a role may do, what a caseload shows, and that every look is logged."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from functools import partial

import httpx
import psycopg
import pytest

from telemetry.access.audit import verify_database
from telemetry.access.secrets import hash_token_secret, new_token
from telemetry.access.throttle import Throttle
from telemetry.access.who import PERMISSIONS, Permission, Role, Who
from telemetry.api.app import create_app
from telemetry.api.guard import MOST_BODY_BYTES, PUBLIC_PATHS, Need
from telemetry.store import Reader
from telemetry.store.keys import KeyRing
from tests.telemetry.access.conftest import PASSWORD, guarded, roster_town
from tests.telemetry.api.town import Fine, fresh_database

PUBLIC = PUBLIC_PATHS | {"/healthz", "/readyz"}


def all_routes():
    """Path, method and needed permission of every route of the API; None: it names none."""
    app = create_app(
        Reader("postgresql://nobody@127.0.0.1:1/nothing"), Fine(), zones_read_only=False, version="0"
    )
    flat = [
        (route, "") if hasattr(route, "path") else (inner, "/api/v1")  # some versions keep routers apart
        for route in app.routes
        for inner in getattr(getattr(route, "original_router", None), "routes", [None])
    ]
    for route, prefix in flat:
        needs = None
        for dependency in getattr(getattr(route, "dependant", None), "dependencies", ()):
            if isinstance(dependency.call, Need):
                needs = dependency.call.permission
        for method in sorted(route.methods - {"HEAD"}):
            yield prefix + route.path, method, needs


ROUTES = [route for route in all_routes() if not route[0].startswith("/console") and route[0] != "/"]


def filled_in(path):
    values = {"device_id": "a1", "alert_id": "1", "version": "1", "participant": "p-north"}
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match.group(1), "1"), path)


def test_every_route_names_what_it_needs():
    without = {path for path, _, needs in ROUTES if needs is None}
    assert without <= PUBLIC, f"these need `Annotated[Who, need(Permission.…)]`: {without - PUBLIC}"
    assert len(ROUTES) > 20


def test_nobody_is_let_in_unknown(door_api, problem):
    for path, method, _ in ROUTES:
        if path not in PUBLIC:
            answer = door_api.request(method, filled_in(path))
            assert problem(answer, 401)["type"].endswith("log-in-needed"), (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")
    for path in ("/api/v1/nothing", "/api/v1/devices/", "/api/v1//devices"):
        problem(door_api.get(path), 401)  # not even which paths there are
    assert door_api.get("/healthz").status_code == 200
    assert door_api.get("/").status_code == 200


@pytest.mark.parametrize("role", ["read_only", "operator", "supervisor", "engineer"])
def test_each_role_is_refused_what_its_table_does_not_name(door_api, as_, problem, role):
    who = Who(role, Role(role), frozenset({"north"}), "token")
    refused = 0
    for path, method, needs in ROUTES:
        if needs is not None and not who.may(needs):
            document = problem(door_api.request(method, filled_in(path), headers=as_(role), json={}), 403)
            assert document["type"].endswith("not-permitted"), (method, path)
            refused += 1
    assert refused


def test_the_table_of_roles_is_the_one_that_is_documented():
    assert PERMISSIONS[Role.LOCAL] == set(Permission)
    assert PERMISSIONS[Role.READ_ONLY] < PERMISSIONS[Role.OPERATOR] < PERMISSIONS[Role.SUPERVISOR]
    assert Permission.TRACK not in PERMISSIONS[Role.ENGINEER]


LISTS = ("devices", "transitions", "violations", "alerts")


@pytest.mark.parametrize("path", LISTS)
def test_a_caseload_sees_its_own_alone(door_api, as_, path):
    def devices(name):
        items = door_api.get(f"/api/v1/{path}", headers=as_(name)).raise_for_status().json()["items"]
        return {item["device_id"] for item in items}

    assert devices("operator") == {"a1"}
    assert devices("all") == {"a1", "a2", "b-1"}


def test_pages_of_a_caseload_are_whole(door_api, as_):
    page = door_api.get("/api/v1/alerts?limit=1", headers=as_("operator")).json()
    assert [item["device_id"] for item in page["items"]] == ["a1"]
    assert page["next"] is None  # not even that there are others


def test_of_other_caseloads_there_is_nothing(door_api, caseloads, as_, problem):
    south = next(
        item["alert_id"]
        for item in door_api.get("/api/v1/alerts", headers=as_("all")).json()["items"]
        if item["device_id"] == "a2"
    )
    mine = as_("supervisor")
    window = "?from=2026-11-01T00:00:00Z&to=2026-12-01T00:00:00Z"
    for path, method, _ in ROUTES:
        if "{device_id}" in path and method == "GET":
            problem(door_api.get(path.format(device_id="a2"), headers=mine), 404)
        if "{alert_id}" in path:
            body = None if method == "GET" else {"outcome": "real"} if path.endswith("resolve") else {}
            if path.endswith("assign"):
                body = {"to": "me"}
            answer = door_api.request(method, path.format(alert_id=south), headers=mine, json=body)
            problem(answer, 404)
    assert "a2" not in door_api.get("/api/v1/positions", headers=mine).text
    assert "a1" in door_api.get("/api/v1/positions", headers=mine).text
    for path, _, needs in ROUTES:  # whatever a list of the future shows
        if "{" not in path and path.startswith("/api/v1") and path != "/api/v1/stream" and needs:
            answer = door_api.get(path, headers=mine)
            assert '"a2"' not in answer.text, path
            assert "p-south" not in answer.text, path
    unknown = problem(door_api.get(f"/api/v1/devices/no-such/track{window}", headers=mine), 404)
    hidden = problem(door_api.get(f"/api/v1/devices/a2/track{window}", headers=mine), 404)
    assert unknown["detail"].replace("no-such", "a2") == hidden["detail"]


def test_a_device_that_was_handed_on_shows_only_its_own_time(caseloads, door_api, as_):
    """Who supervises the new wearer sees nothing of the one before."""
    window = "?from=2026-11-01T00:00:00Z&to=2026-12-01T00:00:00Z"
    path = f"/api/v1/devices/a1/track{window}"
    before = door_api.get(path, headers=as_("operator")).json()["items"]
    with psycopg.connect(caseloads.url, autocommit=True) as connection:
        handed = before[2]["time"]
        connection.execute("UPDATE enrollments SET from_time = %s WHERE device_id = 'a1'", (handed,))
        try:
            assert door_api.get(path, headers=as_("operator")).json()["items"] == before[2:]
            assert door_api.get("/api/v1/alerts", headers=as_("operator")).json()["items"] == []
        finally:
            connection.execute("UPDATE enrollments SET from_time = NULL WHERE device_id = 'a1'")


def test_a_device_that_was_handed_on_keeps_to_itself_what_was_before(caseloads, as_):
    """Commands, check-ins, suppressions, events and the newest ping of the wearer before."""
    device, later = "/api/v1/devices/a1", "2100-01-01T00:00:00Z"
    with (
        guarded(caseloads.url) as client,
        psycopg.connect(caseloads.url, autocommit=True) as connection,
    ):

        def shown():
            def get(path):
                return client.get(path, headers=as_("operator")).raise_for_status().json()

            with client.stream("GET", "/api/v1/stream?last_event_id=0", headers=as_("operator")) as stream:
                lines = stream.iter_lines()
                events = next(line for line in lines if line.startswith(("event: alert", ": beat")))
            return {
                "commands": len(get(f"{device}/commands")["items"]),
                "check-ins": len(get(f"{device}/check-ins")["items"]),
                "suppressions": len(get("/api/v1/suppressions")["items"]),
                "position": get(device)["position"] is not None,
                "open alerts": get(device)["open_alerts"],
                "positions": len(get("/api/v1/positions")["rows"]),
                "events": events == "event: alert",
            }

        client.post(
            f"{device}/commands", json={"command": "message", "text": "hi"}, headers=as_("operator")
        ).raise_for_status()
        connection.execute(
            "INSERT INTO check_ins (time, received_time, batch, item, share, device_id, outcome, method)"
            " VALUES (now(), now(), 0, 0, 0, 'a1', 'verified', 'voice')"
        )
        quiet = {"device_id": "a1", "until": "2027-01-01T00:00:00Z", "reason": "strap"}
        client.post("/api/v1/suppressions", json=quiet, headers=as_("operator")).raise_for_status()
        before = shown()
        connection.execute("UPDATE enrollments SET from_time = %s WHERE device_id = 'a1'", (later,))
        try:
            after = shown()
            asked = client.post(f"{device}/commands", json={"command": "locate"}, headers=as_("operator"))
        finally:
            connection.execute("UPDATE enrollments SET from_time = NULL WHERE device_id = 'a1'")
            connection.execute("DELETE FROM suppressions WHERE reason = 'strap'")
    assert all(before.values()), before
    assert not any(after.values()), after
    assert asked.status_code == 202


def test_notes_of_versions_are_not_for_a_caseload(caseloads, door_api, as_):
    with psycopg.connect(caseloads.url, autocommit=True) as connection:
        connection.execute("UPDATE rules SET note = 'p-south is in hospital'")
        try:
            pages = [
                door_api.get("/api/v1/versions", headers=as_(name)).text for name in ("all", "read_only")
            ]
        finally:
            connection.execute("UPDATE rules SET note = NULL")
    assert ["p-south" in page for page in pages] == [True, False]


def test_the_stream_of_a_caseload_holds_its_own_events(caseloads, door_api, as_):
    with door_api.stream("GET", "/api/v1/stream?last_event_id=0", headers=as_("operator")) as response:
        text = ""
        for chunk in response.iter_text():
            text += chunk
            if "event: alert" in text:
                break
    for event in re.findall(r"data: (\{\"specversion.*)\n", text):
        assert json.loads(event)["subject"] == "a1"


def test_every_look_at_a_track_is_logged(caseloads, door_api, as_):
    window = {"from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
    url = "/api/v1/devices/a1/track"
    door_api.get(url, params=window, headers=as_("operator") | {"Ringfence-Reason": "K%C3%BCche 7"})
    door_api.get(url, params=window | {"reason": "court asked", "format": "csv"}, headers=as_("all"))
    looks = door_api.get("/api/v1/looks", params={"device": "a1"}, headers=as_("supervisor")).json()["items"]
    found = [(look["who"], look["what"], look["participant"], look["reason"]) for look in looks[:2]]
    assert found == [("all", "export", "p-north", "court asked"), ("operator", "track", "p-north", "Küche 7")]
    assert looks[0]["from"] == window["from"]
    assert all(v.broken is None for v in verify_database(caseloads.url, None, lambda *_: None))


def test_a_reason_can_be_demanded(caseloads, keys, as_, problem):
    with guarded(caseloads.url, reason_needed=True) as client:
        url = "/api/v1/devices/a1/track"
        assert problem(client.get(url, headers=as_("all")), 422)["type"].endswith("reason-needed")
        problem(client.get(url, headers=as_("all") | {"Ringfence-Reason": "%20%20"}), 422)
        assert client.get(f"{url}?reason=patrol", headers=as_("all")).status_code == 200


def test_a_step_is_logged_under_the_name_of_who_is_logged_in(caseloads, door_api, as_):
    url = f"/api/v1/alerts/{caseloads.raise_alert('a1')}"
    done = door_api.post(f"{url}/acknowledge", json={"who": "somebody else"}, headers=as_("operator"))
    assert done.raise_for_status().json()["log"][-1]["who"] == "operator"
    ended = door_api.post(f"{url}/resolve", json={"outcome": "excused"}, headers=as_("operator")).json()
    assert (ended["log"][-1]["who"], ended["log"][-1]["outcome"]) == ("operator", "excused")


def test_a_caseload_keeps_only_its_own_devices_quiet(door_api, as_, problem):
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))

    def quiet(name, **what):
        body = {"until": until, "reason": "test", **what}
        return door_api.post("/api/v1/suppressions", json=body, headers=as_(name))

    for what in ({"rule_id": "strap"}, {"zone_id": "z"}, {"device_id": "a2"}, {"device_id": "no-such"}):
        assert problem(quiet("operator", **what), 403)["type"].endswith("not-permitted")
    mine = quiet("operator", device_id="a1").raise_for_status().json()["suppression_id"]
    others = quiet("all", device_id="a2").raise_for_status().json()["suppression_id"]
    seen = door_api.get("/api/v1/suppressions", headers=as_("operator")).json()["items"]
    assert [row["suppression_id"] for row in seen] == [mine]
    problem(door_api.post(f"/api/v1/suppressions/{others}/lift", json={}, headers=as_("operator")), 404)
    for name, number in (("operator", mine), ("all", others)):
        lifted = door_api.post(f"/api/v1/suppressions/{number}/lift", json={}, headers=as_(name))
        assert lifted.raise_for_status().json()["lifted_by"] == name


# --- sessions -----------------------------------------------------------------------------------


def log_in(client, name="m.ito", password=PASSWORD, **headers):
    return client.post("/api/v1/session", json={"name": name, "password": password}, headers=headers)


def test_a_session_begins_and_ends(caseloads, keys, problem):
    with guarded(caseloads.url) as client:
        me = log_in(client).raise_for_status()
        cookie = me.headers["set-cookie"]
        assert cookie.startswith("ringfence-session=")
        assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
        assert me.json()["groups"] == ["north"]
        assert "track" in me.json()["permissions"]
        assert client.get("/api/v1/session").json()["how"] == "session"
        assert client.get("/api/v1/devices").json()["items"][0]["device_id"] == "a1"
        value = client.cookies["ringfence-session"]
        own = {"Origin": str(client.base_url).rstrip("/")}
        assert client.delete("/api/v1/session", headers=own).status_code == 204
        assert not client.cookies
        problem(client.get("/api/v1/devices", headers={"Cookie": f"ringfence-session={value}"}), 401)
    with psycopg.connect(caseloads.url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM access_log WHERE to_json(access_log)::text LIKE %s", (f"%{value}%",)
        ).fetchone()
    assert row == (0,)


def test_over_tls_the_cookie_is_for_this_host_alone(caseloads, keys):
    with guarded(caseloads.url) as client:
        cookie = log_in(client, **{"X-Forwarded-Proto": "https"}).headers["set-cookie"]
        assert cookie.startswith("__Host-ringfence-session=")
        assert "Secure" in cookie.split("; ")
        assert "strict-transport-security" in client.get("/", headers={"X-Forwarded-Proto": "https"}).headers


def test_a_page_of_another_site_changes_nothing(caseloads, keys, door_api, problem):
    with guarded(caseloads.url) as client:
        log_in(client).raise_for_status()
        url = f"/api/v1/alerts/{caseloads.raise_alert('a1')}/acknowledge"
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {},  # a cookie, and no word of where it comes from
        ):
            assert problem(client.post(url, json={}, headers=headers), 403)["type"].endswith("foreign-origin")
        own = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        assert client.post(url, json={}, headers=own).status_code == 200


def test_a_wrong_log_in_says_not_what_is_wrong_and_is_slowed_down(caseloads, keys, problem, monkeypatch):
    monkeypatch.setattr("telemetry.access.door.Throttle", partial(Throttle, clock=lambda: 0.0))
    with guarded(caseloads.url) as client:
        wrong = problem(log_in(client, password="four random words their"), 401)
        nobody = problem(log_in(client, name="nobody"), 401)
        assert wrong == nobody
        for _ in range(4):
            log_in(client, password="guess guess guess")
        answer = log_in(client)  # though it is right now
        assert problem(answer, 429)["type"].endswith("too-many-tries")
        assert int(answer.headers["retry-after"]) >= 1
        refused = client.get(
            "/api/v1/looks?what=log_in_refused", headers={"Authorization": f"Bearer {keys['all']}"}
        )
        assert {look["who"] for look in refused.json()["items"]} == {"m.ito", "nobody"}


def test_what_was_sent_to_log_in_is_never_echoed(door_api, problem):
    secret = "hunter2-hunter2"
    for body in (
        {"name": "m.ito", "password": [secret]},
        {"name": secret * 40, "password": secret},
        {"name": "m.ito", "password": secret, "pass": secret},
        {"password": secret},
    ):
        answer = door_api.post("/api/v1/session", json=body)
        problem(answer, 422)
        assert secret not in answer.text


def test_a_disabled_account_and_a_revoked_token_are_out_at_once(caseloads, keys, problem):
    from telemetry.access import door
    from telemetry.access.secrets import hash_password, hash_token_secret, new_token

    token_id, secret, text = new_token()
    with (
        contextlib.closing(KeyRing.open(caseloads.url, by="tests")) as ring,
        guarded(caseloads.url) as client,
    ):
        ring.add_account("k.osei", "operator", None, hash_password(PASSWORD))
        ring.add_token(token_id, "t", role="operator", groups=None, secret_hash=hash_token_secret(secret),
                       expires_us=None)  # fmt: skip
        log_in(client, name="k.osei").raise_for_status()
        assert client.get("/api/v1/devices").status_code == 200
        ring.disable_account("k.osei")
        problem(client.get("/api/v1/devices"), 401)
        client.cookies.clear()
        problem(log_in(client, name="k.osei"), 401)
        ring.set_password("k.osei", hash_password(PASSWORD + "!"))
        assert log_in(client, name="k.osei", password=PASSWORD + "!").status_code == 200
        ring.revoke_token(token_id)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(door, "TOKEN_KEPT_S", 0.0)
            client.cookies.clear()
            problem(client.get("/api/v1/devices", headers={"Authorization": f"Bearer {text}"}), 401)


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer x", "Basic YTpi", "Bearer rf_0_0_00000000", "bearer \xff", "Bearer " + "x" * 9000],
)
def test_what_is_no_token_lets_nobody_in(door_api, problem, header):
    problem(door_api.get("/api/v1/devices", headers={"Authorization": header.encode("latin-1")}), 401)


def test_on_loopback_the_local_user_needs_no_log_in_until_somebody_can(town_without_keys, problem):
    from telemetry.access import door
    from telemetry.access.secrets import hash_password

    with pytest.MonkeyPatch.context() as patch, guarded(town_without_keys, loopback=True) as client:
        patch.setattr(door, "OPEN_LOOK_S", 0.0)
        me = client.get("/api/v1/session").json()
        assert (me["how"], me["role"], len(me["permissions"])) == ("loopback", "local", len(Permission))
        with contextlib.closing(KeyRing.open(town_without_keys, by="tests")) as ring:
            ring.add_account("m.ito", "read_only", None, hash_password(PASSWORD))
        problem(client.get("/api/v1/devices"), 401)
        log_in(client).raise_for_status()
        assert client.get("/api/v1/devices").status_code == 200


def test_the_door_stays_locked_when_the_last_key_is_gone(town_without_keys, problem):
    """A token that runs out must not leave the next start open to whoever asks."""
    with contextlib.closing(KeyRing.open(town_without_keys, by="tests")) as ring:
        token_id, secret, _ = new_token()
        ring.add_token(
            token_id,
            "sync",
            role="read_only",
            groups=None,
            secret_hash=hash_token_secret(secret),
            expires_us=None,
        )
        ring.revoke_token(token_id)
        assert not ring.any()
    with guarded(town_without_keys, loopback=True) as client:
        problem(client.get("/api/v1/devices"), 401)


@pytest.fixture
def town_without_keys(embedded_database_url):
    from telemetry.store import Store

    with contextlib.closing(Store.open(embedded_database_url)) as store:
        store.migrate()
    return embedded_database_url


# --- what a request may be ----------------------------------------------------------------------


def test_head_answers_as_get_does(door_api, as_):
    for path in ("/", "/healthz", "/api/v1/devices", "/api/v1/alerts?limit=1", "/api/v1/devices/a1/track",
                 "/api/v1/stream", "/api/v1/devices/nobody", "/console/main.js"):  # fmt: skip
        head = door_api.head(path, headers=as_("all"))
        assert head.content == b"", path
        if path == "/api/v1/stream":
            assert (head.status_code, head.headers["content-type"]) == (
                200,
                "text/event-stream; charset=utf-8",
            )
            continue
        get = door_api.get(path, headers=as_("all"))
        assert head.status_code == get.status_code, path
        same = ("content-type", "etag", "content-length", "content-security-policy")
        assert [head.headers.get(name) for name in same] == [get.headers.get(name) for name in same], path


def test_bodies_have_a_limit(door_api, as_, problem):
    def pieces(n_bytes):
        for _ in range(n_bytes // 65_536 + 1):
            yield b" " * 65_536

    url = "/api/v1/alerts/1/acknowledge"
    told = {"Content-Length": str(MOST_BODY_BYTES + 1)} | as_("operator")
    request = door_api.build_request("POST", url, content=b"", headers=told)
    assert request.headers["content-length"] == str(MOST_BODY_BYTES + 1)
    untold = {"Content-Type": "application/json"} | as_("operator")
    answer = door_api.post(url, content=pieces(MOST_BODY_BYTES), headers=untold)
    assert problem(answer, 413)["type"].endswith("body-too-large")
    unknown = door_api.post("/api/v1/session", content=b" " * 20_000)
    assert problem(unknown, 413)["type"].endswith("body-too-large")


def test_log_ins_side_by_side_are_counted(caseloads, keys):
    with guarded(caseloads.url) as client:
        answers = []

        def guess():
            with httpx.Client(base_url=client.base_url, timeout=30) as own:
                answers.append(log_in(own, password="guess guess guess").status_code)

        guessing = [threading.Thread(target=guess) for _ in range(12)]
        for thread in guessing:
            thread.start()
        for thread in guessing:
            thread.join()
        assert set(answers) == {401, 429}
        assert answers.count(401) <= 6


def test_leave_of_others_is_not_a_caseloads_to_grant_or_revoke(postgres_url, problem):
    """Over the API, where a change works on the document in place."""
    with fresh_database(postgres_url) as url, roster_town(url):
        tokens = {}
        for name, groups in (("north", ["north"]), ("all", None)):
            token_id, secret, text = new_token()
            with contextlib.closing(KeyRing.open(url, by="tests")) as ring:
                ring.add_token(
                    token_id,
                    name,
                    role="supervisor",
                    groups=groups,
                    secret_hash=hash_token_secret(secret),
                    expires_us=None,
                )
            tokens[name] = text
        north, everyone = (
            {"If-Match": "*", "Authorization": f"Bearer {tokens[name]}"} for name in ("north", "all")
        )
        with guarded(url, zones_read_only=False) as client:

            def leave(*subjects):
                times = {"from": "2030-01-01T00:00:00Z", "until": "2030-01-02T00:00:00Z"}
                return times | {"subjects": list(subjects), "reason": "court"}

            for subjects in (["participant:p-south"], ["all"], ["device:a1", "device:a2"], ["group:south"]):
                body = leave(*subjects)
                problem(client.post("/api/v1/leaves", json=body, headers=north), 403)
                problem(client.post("/api/v1/leaves?validate=only", json=body, headers=north), 403)
            body = leave("participant:p-north")
            assert client.post("/api/v1/leaves", json=body, headers=north).status_code == 200
            body = leave("participant:p-south")
            assert client.post("/api/v1/leaves", json=body, headers=everyone).status_code == 200
            granted = client.get("/api/v1/leaves", headers=everyone).json()["items"]
            ids = {item["subjects"][0]: item["leave_id"] for item in granted}
            path = "/api/v1/leaves/{}".format
            problem(client.delete(path(ids["participant:p-south"]), headers=north), 403)
            assert client.delete(path(ids["participant:p-north"]), headers=north).status_code == 200


def test_a_caseload_grants_leave_to_its_own_people_alone():
    from telemetry.access.scope import changes_own_leaves_alone

    devices = [{"id": "a1", "participant": "p1", "groups": ["north"]}, {"id": "a2", "groups": ["south"]}]
    north = frozenset({"north"})

    def rules(*subjects):
        leaves = [{"subjects": list(row), "from": "2026-11-24T08:00:00Z"} for row in subjects]
        return {"rules": {"devices": devices, "leaves": leaves}}

    for subject in ("device:a1", "participant:p1", "group:north"):
        assert changes_own_leaves_alone(north, rules(), rules([subject])), subject
        assert changes_own_leaves_alone(north, rules([subject]), rules()), subject
    for subject in ("device:a2", "group:south", "all", "device:unknown"):
        assert not changes_own_leaves_alone(north, rules(), rules([subject])), subject
        assert not changes_own_leaves_alone(north, rules([subject]), rules()), subject
    assert not changes_own_leaves_alone(north, rules(), rules(["device:a1", "device:a2"]))
    assert changes_own_leaves_alone(north, rules(["all"]), rules(["all"], ["device:a1"]))
