"""Where the broker is, and what to do when it does not let us in."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BrokerAddress", "MqttError", "connect_error", "refusal_error", "silence_error", "tls_context"]

PORT: Final = 1883
TLS_PORT: Final = 8883


class MqttError(Exception):
    """The broker can't be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """An MQTT URL, taken apart.

    >>> BrokerAddress.parse("mqtt://ada:s%40cret@broker.example").shown
    'mqtt://ada@broker.example:1883'
    """

    host: str
    port: int
    user: str | None
    password: str | None
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Self:
        """Take ``mqtt://user:password@host:port`` or ``mqtts://…`` apart; MqttError when it is neither."""
        parts = urlsplit(url)
        try:
            port = parts.port
        except ValueError as error:
            raise MqttError(
                f"the broker's URL has a wrong port ({error}); give one from 1 to 65535"
            ) from error
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
            raise MqttError(
                f"{parts.scheme}://{parts.hostname or ''} is no broker's URL; "
                "write mqtt://user:password@host:1883, or mqtts:// for TLS"
            )
        tls = parts.scheme == "mqtts"
        return cls(
            host=parts.hostname,
            port=port or (TLS_PORT if tls else PORT),
            user=unquote(parts.username) if parts.username is not None else None,
            password=unquote(parts.password) if parts.password is not None else None,
            tls=tls,
        )

    @property
    def shown(self) -> str:
        """The URL without its password, for messages."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{user}{host}:{self.port}"


def tls_context(ca_file: Path | None, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """A context that verifies the broker's certificate and name, against ``ca_file`` or the system's.

    own : our certificate and its key, for a broker that asks who we are
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise MqttError(
            f"the CA file {ca_file} can't be used ({error}); give a PEM file with the certificate of the "
            "authority that signed the broker's"
        ) from error
    if own is not None:
        try:
            context.load_cert_chain(*own)
        except (OSError, ssl.SSLError) as error:
            raise MqttError(
                f"the certificate {own[0]} with the key {own[1]} can't be used ({error}); "
                "give PEM files that belong together"
            ) from error
    return context


def connect_error(address: BrokerAddress, error: OSError | UnicodeError) -> MqttError:
    """What went wrong before MQTT was spoken, with the remedy."""
    where = f"the broker {address.shown}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return MqttError(
            f"{where} shows a certificate that is not trusted ({error.verify_message}); give the file of the "
            "authority that signed it (mqtt_ca), or the host name that stands in the certificate"
        )
    if isinstance(error, ssl.SSLError) or (address.tls and isinstance(error, ConnectionResetError)):
        return MqttError(
            f"{where} does not speak TLS on port {address.port} ({getattr(error, 'reason', None) or error}); "
            "give its TLS port (usually 8883), or mqtt:// for a connection without TLS"
        )
    if isinstance(error, socket.gaierror | UnicodeError):
        return MqttError(f"{where} is unknown: no address for host {address.host}; correct the host name")
    if isinstance(error, ConnectionRefusedError):
        return MqttError(
            f"{where} refuses connections: nothing listens there; start the broker, or correct host and port"
        )
    if isinstance(error, TimeoutError):
        return MqttError(f"{where} does not answer; check host, port and firewall")
    return MqttError(f"{where} can't be reached ({error.strerror or error}); check host, port and network")


def refusal_error(address: BrokerAddress, code: int, name: str, client_id: str) -> MqttError:
    """Why a broker that speaks MQTT turned us away; ``code`` is the MQTT 5 reason code of the CONNACK."""
    where = f"the broker {address.shown}"
    remedies = {
        0x84: "it speaks another version of MQTT; set mqtt_protocol to 3.1.1 or to 5",
        0x85: f"allow the client id {client_id!r}",
        0x86: "give its user and password in the URL: mqtt://user:password@host:port",
        0x87: "give its user and password in the URL (mqtt://user:password@host:port), or allow it there",
        0x88: "it is not ready; try again later",
    }
    return MqttError(f"{where} refused the session: {name}; {remedies.get(code, 'see its log')}")


def silence_error(address: BrokerAddress, what: str) -> MqttError:
    """Something listens there that does not answer like an MQTT broker."""
    if address.tls:
        remedy = "give the port of its MQTT over TLS listener (usually 8883)"
    else:
        remedy = "give the port of its MQTT listener (usually 1883), or mqtts:// if the port wants TLS"
    return MqttError(f"{address.shown} does not answer as an MQTT broker ({what}); {remedy}")
