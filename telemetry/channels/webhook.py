"""Messages to a receiver by HTTP, signed by the Standard Webhooks specification 1.0.0."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import httpx

from telemetry.channels.addresses import AddressError, resolve
from telemetry.channels.channel import Outcome, read_event
from telemetry.channels.settings import webhook_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from telemetry.channels.settings import WebhookSettings
    from telemetry.store.deliveries import Delivery, Notice

__all__ = ["Webhook", "signature"]

EXCERPT_BYTES: Final = 200  # of an answer that says no: enough to see what it was, and no more is read
LONGEST_ASKED_S: Final = 3600.0  # of a Retry-After
GONE: Final = 410  # the receiver wants no more of these


def signature(keys: Sequence[bytes], message_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of ``webhook-signature``: one HMAC-SHA256 for each key."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


class Webhook:
    """One receiver."""

    def __init__(self, settings: WebhookSettings) -> None:
        self.name = f"webhook:{settings.name}"
        self._settings = settings
        self._keys = [webhook_key(secret) for secret in settings.secrets]
        self._url = httpx.URL(settings.url)
        parts = urlsplit(settings.url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context(
            cafile=None if settings.ca_file is None else str(settings.ca_file)
        )
        self._runner = asyncio.Runner()

    def wants(self, notice: Notice) -> bool:
        """All messages of its severities, or those alone that ask for a contact who is reached here."""
        if notice.contact is not None and self._settings.name in notice.contact.get("webhooks", ()):
            return True
        if self._settings.deliver == "contact":
            return False
        return read_event(notice.payload).data.severity in self._settings.severities

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Post all of them side by side."""
        return self._runner.run(self._deliver(deliveries))

    def close(self) -> None:
        """End the event loop."""
        self._runner.close()

    async def _deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        async with httpx.AsyncClient(
            verify=self._tls, trust_env=False, follow_redirects=False, timeout=self._settings.timeout_s
        ) as client:
            return list(await asyncio.gather(*(self._post(client, delivery) for delivery in deliveries)))

    async def _post(self, client: httpx.AsyncClient, delivery: Delivery) -> Outcome:
        try:
            # httpx bounds each read, so a receiver that sends a byte now and then could go on for ever
            async with asyncio.timeout(self._settings.timeout_s):
                return await self._send(client, delivery)
        except TimeoutError:
            return Outcome(f"no answer within {self._settings.timeout_s:g} s")
        except AddressError as error:
            return Outcome(str(error))
        except (httpx.HTTPError, ssl.SSLError, OSError) as error:
            return Outcome(f"{type(error).__name__}: {error}")

    async def _send(self, client: httpx.AsyncClient, delivery: Delivery) -> Outcome:
        address = await resolve(self._host, self._port, self._settings.allow_networks)
        message_id, timestamp_s = read_event(delivery.payload).id, int(time.time())
        request = client.build_request(
            "POST",
            self._url.copy_with(host=address),
            content=delivery.payload,
            headers={
                "Host": self._url.netloc.decode(),
                "Content-Type": "application/cloudevents+json",
                "User-Agent": "ringfence",
                "webhook-id": message_id,
                "webhook-timestamp": str(timestamp_s),
                "webhook-signature": signature(self._keys, message_id, timestamp_s, delivery.payload),
            },
            extensions={"sni_hostname": self._host},  # the certificate must be the name's, not the address's
        )
        answer = await client.send(request, stream=True)
        try:
            if answer.is_success:
                return Outcome()
            excerpt = b""
            async for piece in answer.aiter_raw(EXCERPT_BYTES):
                excerpt += piece
                if len(excerpt) >= EXCERPT_BYTES:
                    break
        finally:
            await answer.aclose()
        said = excerpt[:EXCERPT_BYTES].decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
        where = " (redirects are not followed)" if answer.is_redirect else ""
        return Outcome(
            f"status {answer.status_code}{where}: {said!r}",
            for_good=answer.status_code == GONE,
            after_s=_retry_after_s(answer.headers.get("Retry-After")),
        )


def _retry_after_s(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        wait_s = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:
        return None
    return min(max(wait_s, 0.0), LONGEST_ASKED_S)
