"""What the settings file says of channels: ``[[webhooks]]`` and ``[email]``."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

__all__ = ["EmailSettings", "WebhookSettings", "read_secret"]

Severity = Literal["info", "low", "high", "critical"]
Address = Annotated[str, StringConstraints(pattern=r'^[^@\s,;<>"]+@[^@\s,;<>"]+$')]
_ALL: tuple[Severity, ...] = ("info", "low", "high", "critical")
_WEBHOOK_KEY_BYTES = range(24, 65)  # what the Standard Webhooks specification allows


def read_secret(path: Path) -> SecretStr:
    """A secret that stands in a file of its own, such as a systemd credential."""
    try:
        return SecretStr(path.read_text("utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read ({error}); give a file that holds nothing but it") from error


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WebhookSettings(_Section):
    """One receiver by HTTP. Any of several secrets proves a message, so one can be replaced without a gap."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    url: str
    secrets: tuple[SecretStr, ...] = ()
    secret_file: Path | None = None
    severities: tuple[Severity, ...] = _ALL
    deliver: Literal["all", "contact"] = "all"
    allow_networks: tuple[IPvAnyNetwork, ...] = ()
    ca_file: Path | None = None
    timeout_s: float = Field(10.0, gt=0, le=60)

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("write it as https://host/path")
        if parts.username or parts.password:
            raise ValueError("it holds a user or password; the signature proves who sends")
        return value

    @field_validator("secrets")
    @classmethod
    def _secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            webhook_key(secret)
        return value

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("secret_file") and not data.get("secrets"):
            return data | {"secrets": (read_secret(Path(data["secret_file"])),)}
        return data

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.secrets:
            raise ValueError(
                "there is no secret; give `secrets` or `secret_file` (whsec_ and 32 bytes in base64)"
            )
        if urlsplit(self.url).scheme == "http" and not self.allow_networks:
            raise ValueError(
                "http:// can be read by anybody on the way; use https://, or name `allow_networks`"
            )
        return self


def webhook_key(secret: SecretStr) -> bytes:
    """The key in ``whsec_…``."""
    text = secret.get_secret_value().removeprefix("whsec_")
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _WEBHOOK_KEY_BYTES:
        raise ValueError(f"a secret holds {len(key)} bytes; it must be whsec_ and 24 to 64 bytes in base64")
    return key


class EmailSettings(_Section):
    """The mail server, and who is told of every alert."""

    host: str
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: Path | None = None
    user: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    sender: Address
    to: tuple[Address, ...] = ()
    severities: tuple[Severity, ...] = _ALL
    timeout_s: float = Field(15.0, gt=0, le=120)

    @model_validator(mode="before")
    @classmethod
    def _from_file(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("password_file") and not data.get("password"):
            return data | {"password": read_secret(Path(data["password_file"]))}
        return data

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("`user` and `password` (or `password_file`) go together; give both or none")
        if self.user is not None and self.security == "none":
            raise ValueError("a password must not travel in the clear; set security to starttls or tls")
        return self
