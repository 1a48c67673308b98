"""E-mail against a real SMTP server."""

from __future__ import annotations

import email
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope

from telemetry.channels.mail import Mail
from telemetry.channels.settings import EmailSettings


class Post:
    """Keeps letters; refuses who is told to be refused."""

    def __init__(self) -> None:
        self.letters: list[tuple[list[str], EmailMessage]] = []
        self.refused: dict[str, str] = {}
        self.answer = "250 OK"

    async def handle_RCPT(
        self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        if self.answer.startswith("250"):
            letter = email.message_from_bytes(envelope.content, policy=default)
            self.letters.append((list(envelope.rcpt_tos), letter))
        return self.answer


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def server(post: Post) -> Iterator[Callable[..., int]]:
    """Starts a mail server of the post's; gives its port."""
    started: list[Controller] = []

    def start(**options: Any) -> int:
        with socket.socket() as free:  # the controller knocks at the port that it was given, so 0 won't do
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        controller = Controller(post, hostname="127.0.0.1", port=port, **options)
        controller.start()
        started.append(controller)
        return port

    yield start
    for controller in started:
        controller.stop()


def mail(port: int, **more: Any) -> Mail:
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "sender": "ringfence@agency.example",
        "to": ["desk@agency.example", "night@agency.example"],
        "timeout_s": 5,
    }
    return Mail(EmailSettings.model_validate(settings | more))


def test_a_letter_says_what_happened(town, courier, server, post, query):
    letters = courier(mail(server()))
    alert_id = town.raise_alert("a1")
    letters.turn()
    ((recipients, letter),) = post.letters
    assert recipients == ["desk@agency.example", "night@agency.example"]
    assert letter["Subject"] == "[critical] a1: no-schools, opened"
    assert letter["From"] == "ringfence@agency.example"
    assert letter["Auto-Submitted"] == "auto-generated"
    text = letter.get_content()
    assert "inside school-1 by 62 m ± 9 m" in text
    assert str(alert_id) in text
    ((event_id,),) = query("SELECT convert_from(payload, 'utf8')::json ->> 'id' FROM outbox")
    assert letter["Message-ID"] == f"<{event_id}@ringfence.agency.example>"
    assert query("SELECT state FROM deliveries") == [("delivered",)]


def test_an_id_that_holds_a_line_break_makes_no_header(town, courier, server, post, query):
    """A letter that can't be written would hold up all that come after it."""
    letters = courier(mail(server()))
    town.raise_alert("a1")
    query(
        "UPDATE outbox SET payload = convert_to(replace(convert_from(payload, 'utf8'), 'no-schools',"
        " 'no\\r\\nBcc: x@example.org'), 'utf8') RETURNING id"
    )
    letters.turn()
    ((_, letter),) = post.letters
    assert letter["Subject"] == "[critical] a1: no  Bcc: x@example.org, opened"
    assert letter["Bcc"] is None


def test_what_is_not_worth_a_letter_is_not_written(town, courier, server, post):
    letters = courier(mail(server(), severities=["critical"]))
    alert_id = town.raise_alert("a1", severity="high", rule_id="strap", zone_id=None)
    town.store.record_alert_action(alert_id, "acknowledge", "m.ito")
    town.store.record_alert_action(alert_id, "resolve", "m.ito", outcome="real")
    while letters.turn() == 0.0:
        pass
    assert post.letters == []


@pytest.mark.parametrize(
    ("said", "state"), [("451 greylisted, come again", "waiting"), ("550 no such message here", "dead")]
)
def test_a_no_of_the_server_is_kept(town, courier, server, post, query, said, state):
    letters = courier(mail(server()))
    town.raise_alert("a1")
    post.answer = said
    letters.turn()
    assert query("SELECT state FROM deliveries") == [(state,)]
    ((error,),) = query("SELECT error FROM deliveries")
    assert said[4:] in error


def test_one_bad_address_keeps_no_other_from_the_letter(town, courier, server, post, query):
    letters = courier(mail(server()))
    post.refused = {"night@agency.example": "550 unknown"}
    town.raise_alert("a1")
    letters.turn()
    assert [recipients for recipients, _ in post.letters] == [["desk@agency.example"]]
    assert query("SELECT state FROM deliveries") == [("delivered",)]
    post.refused["desk@agency.example"] = "550 unknown"
    town.raise_alert("a2")
    letters.turn()
    assert query("SELECT state FROM deliveries ORDER BY delivery_id") == [("delivered",), ("dead",)]


def test_nobody_at_home(town, courier, server, post, query, clock):
    port = server()
    letters = courier(mail(1))
    town.raise_alert("a1")
    letters.turn()
    assert query("SELECT state, attempts FROM deliveries") == [("waiting", 1)]
    letters._channel._settings = mail(port)._settings
    clock.pass_s(10)
    letters.turn()
    assert len(post.letters) == 1


def test_a_password_travels_only_over_tls(town, courier, server, post, tmp_path, query):
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
        "/CN=127.0.0.1",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    try:
        subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    seen = []

    def authenticate(_server, session, _envelope, _mechanism, data):
        seen.append((data.login, data.password, session.ssl is not None))
        return AuthResult(success=True)

    port = server(tls_context=context, require_starttls=True, auth_required=True, authenticator=authenticate)
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    more = {"security": "starttls", "user": "ringfence", "password_file": str(secret)}
    letters = courier(mail(port, ca_file=str(tmp_path / "cert.pem"), **more))
    town.raise_alert("a1")
    letters.turn()
    assert seen == [(b"ringfence", b"s3cret", True)]
    assert len(post.letters) == 1
    strangers = mail(port, **more)  # does not trust who signed it
    (outcome,) = strangers.deliver(letters._desk.due("nobody", 1) or [_delivery(query)])
    assert outcome.error is not None
    assert "certificate" in outcome.error.lower()


def _delivery(query):
    from telemetry.store.deliveries import Delivery

    ((payload,),) = query("SELECT payload FROM outbox LIMIT 1")
    return Delivery(1, 1, "a1", 0, 0, None, bytes(payload))
