"""Webhooks against a real HTTP server, checked with the official library of Standard Webhooks."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from telemetry.channels.channel import RETRY_AFTER_S
from tests.telemetry.channels.conftest import SECRET, webhook

OTHER = "whsec_" + base64.b64encode(b"another key of 32 bytes, in full").decode()


def test_a_message_is_signed_as_the_specification_says(town, receiver, courier, query):
    pager = courier(webhook(receiver.url, secrets=[OTHER, SECRET]))
    town.raise_alert("a1")
    assert pager.turn() == 0.0
    (request,) = receiver.requests
    assert request.path == "/hook?key=k"
    for secret in (SECRET, OTHER):
        assert Verifier(secret).verify(request.body, request.headers) == request.event
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(request.body + b" ", request.headers)
    assert query("SELECT payload FROM outbox") == [(request.body,)]
    assert request.headers["webhook-id"] == request.event["id"]
    assert request.headers["Content-Type"] == "application/cloudevents+json"
    assert query("SELECT state, attempts, error FROM deliveries") == [("delivered", 1, None)]


def test_what_was_there_before_the_channel_is_not_told(town, receiver, courier):
    town.raise_alert("a1")
    pager = courier(webhook(receiver.url))
    assert pager.turn() > 0
    assert receiver.requests == []


def test_a_failure_is_tried_again_later_and_later_and_then_given_up(town, receiver, courier, query, clock):
    pager = courier(webhook(receiver.url))
    town.raise_alert("a1")
    receiver.answers = [(500, {}, b"oh no")] * (len(RETRY_AFTER_S) + 1)
    for tries, wait_s in enumerate(RETRY_AFTER_S, 1):
        assert pager.turn() == 0.0
        assert query("SELECT state, attempts FROM deliveries") == [("waiting", tries)]
        next_us = pager._desk.next_due_us("webhook:pager")
        assert 0.8 * wait_s <= (next_us - clock()) / 1e6 <= 1.2 * wait_s
        assert len(receiver.requests) == tries
        clock.pass_s((next_us - clock()) / 1e6 - 0.001)
        assert 0 < pager.turn() <= 5.0
        assert len(receiver.requests) == tries
        clock.pass_s(0.002)
    pager.turn()
    assert query("SELECT state, attempts, error FROM deliveries") == [
        ("dead", len(RETRY_AFTER_S) + 1, "status 500: 'oh no'")
    ]
    clock.pass_s(1e6)
    assert pager.turn() > 0
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1


def test_messages_about_a_device_keep_their_order(town, receiver, courier, query, clock):
    pager = courier(webhook(receiver.url))
    first, second = town.raise_alert("a1"), town.raise_alert("a1", rule_id="strap", zone_id=None)
    other = town.raise_alert("a2")
    receiver.answers = [(500, {}, b"")] * 2  # the first of each device
    while pager.turn() == 0.0:
        pass
    clock.pass_s(RETRY_AFTER_S[0] * 1.3)
    while pager.turn() == 0.0:
        pass
    told = [request.event["data"]["alert_id"] for request in receiver.requests]
    assert sorted(told[:2]) == sorted([str(first), str(other)])
    assert [alert_id for alert_id in told if alert_id != str(other)] == [str(first), str(first), str(second)]
    assert query("SELECT count(*) FROM deliveries WHERE state = 'delivered'") == [(3,)]


def test_a_receiver_that_wants_no_more_gets_no_more(town, receiver, courier, query):
    pager = courier(webhook(receiver.url))
    town.raise_alert("a1")
    receiver.answers = [(410, {}, b"")]
    pager.turn()
    assert query("SELECT state, attempts FROM deliveries") == [("dead", 1)]


@pytest.mark.parametrize(
    "header", [lambda: "120", lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=120))]
)
def test_a_receiver_may_ask_for_more_time(town, receiver, courier, clock, header):
    pager = courier(webhook(receiver.url))
    town.raise_alert("a1")
    receiver.answers = [(503, {"Retry-After": header()}, b"")]
    pager.turn()
    assert 100 <= (pager._desk.next_due_us("webhook:pager") - clock()) / 1e6 <= 120


def test_redirects_are_not_followed(town, receiver, receivers, courier, query):
    elsewhere = receivers()
    pager = courier(webhook(receiver.url))
    town.raise_alert("a1")
    receiver.answers = [(307, {"Location": elsewhere.url}, b"")]
    pager.turn()
    assert elsewhere.requests == []
    ((error,),) = query("SELECT error FROM deliveries")
    assert "redirects are not followed" in error


def test_of_a_long_answer_only_the_beginning_is_kept(town, receiver, courier, query):
    pager = courier(webhook(receiver.url))
    town.raise_alert("a1")
    receiver.answers = [(500, {}, b"\0x" * 5_000_000)]
    pager.turn()
    ((error,),) = query("SELECT error FROM deliveries")
    assert len(error) < 1_000


def test_a_receiver_that_drips_its_answer_is_left(town, courier, query):
    """Each byte comes in time; the whole never does."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def drip() -> None:
        end, _ = listener.accept()
        with end:
            while not done.wait(0.02):
                try:
                    end.sendall(b"H")
                except OSError:
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        pager = courier(webhook(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=0.3))
        town.raise_alert("a1")
        pager.turn()
    finally:
        done.set()
        thread.join()
        listener.close()
    assert query("SELECT error FROM deliveries") == [("no answer within 0.3 s",)]


def test_private_addresses_are_refused_unless_allowed(town, receiver, courier, query):
    pager = courier(webhook(receiver.url, allow_networks=["10.0.0.0/8"]))
    town.raise_alert("a1")
    pager.turn()
    assert receiver.requests == []
    ((error,),) = query("SELECT error FROM deliveries")
    assert "127.0.0.1 is not a public address" in error


def test_a_name_is_resolved_once_and_that_address_is_used(town, receiver, courier, monkeypatch):
    """A name server that answers otherwise the second time gains nothing."""
    port = receiver.server.server_address[1]
    asked = []

    def rebinding(host, port, *_args, **_more):
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "10.9.9.9"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    pager = courier(webhook(f"http://hook.example:{port}/", timeout_s=5))
    town.raise_alert("a1")
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *more, **named: (rebinding if host == "hook.example" else real)(host, *more, **named),
    )
    pager.turn()
    assert asked == ["hook.example"]
    (request,) = receiver.requests
    assert request.headers["Host"] == f"hook.example:{port}"


def test_a_name_with_a_private_address_among_others_is_refused(town, receiver, courier, query, monkeypatch):
    answer = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 1))
        for address in ("127.0.0.1", "169.254.169.254")
    ]
    pager = courier(webhook("http://hook.example/", timeout_s=5))
    town.raise_alert("a1")
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *m, **n: answer if host == "hook.example" else real(host, *m, **n)
    )
    pager.turn()
    ((error,),) = query("SELECT error FROM deliveries")
    assert "169.254.169.254 is not a public address" in error


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate of hook.example, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    names = "subjectAltName=DNS:hook.example"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=hook.example",
    ]
    command += ["-addext", names, "-keyout", directory / "key.pem", "-out", directory / "cert.pem"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return directory


@pytest.mark.parametrize(("name", "works"), [("hook.example", True), ("other.example", False)])
def test_the_certificate_must_be_that_of_the_name(
    town, courier, certificate, monkeypatch, query, name, works
):
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    port = server.server_address[1]
    try:
        pager = courier(webhook(f"https://{name}:{port}/", timeout_s=5, ca_file=certificate / "cert.pem"))
        town.raise_alert("a1")
        real = socket.getaddrinfo
        here = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *m, **n: here if host == name else real(host, *m, **n)
        )
        pager.turn()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    ((state, error),) = query("SELECT state, error FROM deliveries")
    assert (len(got), state) == ((1, "delivered") if works else (0, "waiting"))
    assert works or "certificate" in error.lower()


def test_only_what_it_asked_for_is_sent(town, receiver, receivers, courier):
    critical = courier(webhook(receiver.url, "critical", severities=["critical"]))
    nobody = receivers()
    named = courier(webhook(nobody.url, "named", deliver="contact"))
    town.raise_alert("a1", severity="critical")
    town.raise_alert("a1", severity="high", rule_id="strap", zone_id=None)
    for channel in (critical, named):
        while channel.turn() == 0.0:
            pass
    assert [request.event["data"]["severity"] for request in receiver.requests] == ["critical"]
    assert nobody.requests == []
