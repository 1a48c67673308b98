"""Messages by e-mail, through one mail server."""

from __future__ import annotations

import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from telemetry.channels.channel import Outcome, change_of, read_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemetry.alerts.events import AlertEvent
    from telemetry.channels.settings import EmailSettings
    from telemetry.store.deliveries import Delivery, Notice

__all__ = ["Mail", "letter"]

NAME: Final = "email"
# What is worth a letter; an alert's every update is not.
TOLD: Final = {
    "opened": "opened",
    "reopened": "reopened",
    "withdrawn": "withdrawn: later pings refute it",
    "unsuppressed": "no longer kept quiet",
    "escalated": "nobody has taken it up",
}
PERMANENT: Final = range(500, 600)  # of SMTP replies


class Mail:
    """Everybody who is told by e-mail."""

    name = NAME

    def __init__(self, settings: EmailSettings) -> None:
        self._settings = settings
        self._tls = ssl.create_default_context(
            cafile=None if settings.ca_file is None else str(settings.ca_file)
        )

    def wants(self, notice: Notice) -> bool:
        """A step that is worth a letter, and somebody to write to."""
        event = read_event(notice.payload)
        if change_of(event) not in TOLD or not self._recipients(notice.contact):
            return False
        return notice.contact is not None or event.data.severity in self._settings.severities

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Send all of them over one connection; when it breaks, the rest is tried again later."""
        outcomes: list[Outcome] = []
        try:
            with self._connect() as server:
                for delivery in deliveries:
                    outcomes.append(self._send(server, delivery))  # noqa: PERF401 - those before a break count
        except smtplib.SMTPResponseException as error:
            said = f"{error.smtp_code} {error.smtp_error!r}"
            return _filled(outcomes, len(deliveries), f"the mail server says {said}")
        except (smtplib.SMTPException, OSError) as error:
            return _filled(outcomes, len(deliveries), f"{type(error).__name__}: {error}")
        return outcomes

    def close(self) -> None:
        """Nothing is held between two deliveries."""

    def _recipients(self, contact: dict[str, object] | None) -> tuple[str, ...]:
        """Of an escalation the contact's addresses, of all else those of the settings."""
        if contact is None:
            return self._settings.to
        addresses = contact.get("email", ())
        return tuple(map(str, addresses)) if isinstance(addresses, list | tuple) else ()

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        if settings.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                settings.host, settings.port, timeout=settings.timeout_s, context=self._tls
            )
        else:
            server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s)
        try:
            if settings.security == "starttls":
                server.starttls(context=self._tls)
            if settings.user is not None and settings.password is not None:
                server.login(settings.user, settings.password.get_secret_value())
        except BaseException:
            server.close()
            raise
        return server

    def _send(self, server: smtplib.SMTP, delivery: Delivery) -> Outcome:
        recipients = self._recipients(delivery.contact)
        message = letter(read_event(delivery.payload), self._settings.sender, recipients, delivery.created_us)
        try:
            refused = server.send_message(message, self._settings.sender, recipients)
        except smtplib.SMTPRecipientsRefused as error:
            refused = error.recipients
            if len(refused) == len(recipients):
                for_good = all(code in PERMANENT for code, _ in refused.values())
                return Outcome(f"refused for every recipient: {_replies(refused)}", for_good=for_good)
        except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
            said = f"{error.smtp_code} {error.smtp_error!r}"
            return Outcome(f"the mail server says {said}", for_good=error.smtp_code in PERMANENT)
        return Outcome()


def letter(event: AlertEvent, sender: str, recipients: Sequence[str], created_us: int) -> EmailMessage:
    """The letter about one step. Its Message-ID is the event's, so a repeated one is known as such."""
    data, told = event.data, TOLD[change_of(event)]
    rule_id, zone_id = _on_one_line(data.rule_id), _on_one_line(data.zone_id or "-")
    asked = f"Step {data.escalation.step}: {data.escalation.contact} is asked.\n" if data.escalation else ""
    message = EmailMessage()
    message["Subject"] = f"[{data.severity}] {data.device_id}: {rule_id}, {told}"
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Date"] = formatdate(created_us / 1e6)
    message["Message-ID"] = f"<{event.id}@ringfence.{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        f"{data.sentence}\n\n"
        f"Device    {data.device_id}\n"
        f"Rule      {rule_id}\n"
        f"Zone      {zone_id}\n"
        f"Severity  {data.severity}\n"
        f"Since     {data.opened_at}\n"
        f"Alert     {data.alert_id}\n\n"
        f"{asked}"
    )
    return message


def _on_one_line(text: str) -> str:
    r"""An id may hold any character; a header that held a line break would be refused, and hold up the queue.

    >>> _on_one_line("home\r\nBcc: x@example.org")
    'home  Bcc: x@example.org'
    """
    return "".join(character if character.isprintable() else " " for character in text)


def _replies(refused: dict[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{code} {said.decode('utf-8', 'replace')}" for code, said in refused.values())


def _filled(outcomes: list[Outcome], n: int, error: str) -> list[Outcome]:
    return outcomes + [Outcome(error)] * (n - len(outcomes))
