"""Settings: a TOML file, then RINGFENCE_* in the environment, then command line flags; later ones win."""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from telemetry.channels.settings import (  # noqa: TC001 - pydantic needs them
    EmailSettings,
    WebhookSettings,
)
from telemetry.mqtt.patterns import DEFAULT_FORMATS, Pattern
from telemetry.mqtt.topics import KIND_OF_FORMAT

__all__ = ["DEFAULT_HTTP", "Settings", "SettingsError", "default_data_dir", "load_settings"]

DEFAULT_HTTP: Final = "127.0.0.1:8750"


class SettingsError(Exception):
    """A setting is wrong; the message names it, its value, where it came from and the remedy."""


def default_data_dir() -> Path:
    """Where state is kept when nobody says otherwise: the user's state directory (XDG)."""
    state_home = os.environ.get("XDG_STATE_HOME")
    if state_home:
        return Path(state_home) / "ringfence"
    try:
        return Path.home() / ".local" / "state" / "ringfence"
    except RuntimeError:  # no HOME and no passwd entry, as in some containers
        return Path("/var/tmp") / f"ringfence-{os.getuid()}"  # noqa: S108 - survives a reboot, as state must


class Settings(BaseModel):
    """What ``ringfence up`` and its siblings can be told; ``--print-config`` shows the outcome."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mqtt_url: str | None = Field(None, description="MQTT broker; left out: an embedded one is started")
    mqtt_ca: Path | None = Field(
        None, description="PEM file of the authority that signed the broker's certificate"
    )
    mqtt_protocol: Literal["3.1.1", "5"] = Field(
        "3.1.1", description="version of MQTT to speak; the embedded broker speaks 3.1.1"
    )
    mqtt_cert: Path | None = Field(
        None, description="PEM file with our own certificate, for a broker that asks for one"
    )
    mqtt_key: Path | None = Field(None, description="PEM file with that certificate's key")
    mqtt_port: int | None = Field(
        None, ge=1, le=65535, description="port of the embedded broker; left out: a free one"
    )
    mqtt_root: str = Field("ringfence/v1", description="root of all topics")
    formats: dict[str, str] = Field(
        default_factory=lambda: dict(DEFAULT_FORMATS),
        description="table [formats]: topic pattern = format, for devices of other makers; as text "
        "fleet/{imei}/data=teltonika,…",
    )
    database_url: str | None = Field(
        None, description="PostgreSQL or TimescaleDB; left out: an embedded one is started"
    )
    rules: Path | None = Field(None, description="directory with zones/*.geojson and rules.toml")
    data_dir: Path = Field(default_factory=default_data_dir, description="where everything local is kept")
    http: str = Field(DEFAULT_HTTP, description="HOST:PORT of API and console")
    http_cert: Path | None = Field(
        None, description="PEM file with the certificate of API and console, and its chain: TLS"
    )
    http_key: Path | None = Field(None, description="PEM file with that certificate's key")
    session_hours: float = Field(12.0, gt=0, le=24 * 30, description="how long a log-in of a browser lasts")
    require_reason: bool = Field(
        True,
        description="a look at a person's track or record must say why, when the API can be reached from "
        "other machines",
    )
    token: SecretStr | None = Field(
        None, description="of the commands that ask the API; better RINGFENCE_TOKEN than a file"
    )
    http_ca: Path | None = Field(
        None, description="PEM file of the authority that the commands trust when they ask the API"
    )
    tile_url: str | None = Field(
        None, description="map tiles for the console, as https://host/{z}/{x}/{y}.png; left out: zones alone"
    )
    allowed_hosts: str = Field(
        "", description="names, with commas, by which a reverse proxy reaches the API, besides localhost"
    )
    simulate: int = Field(0, ge=0, le=1_000_000, description="number of simulated devices to run as well")
    simulate_seed: int = Field(1, ge=0, description="seed of the simulated fleet")
    share: int = Field(0, ge=0, le=32767, description="which share this engine is")
    batch_pings: int = Field(50_000, ge=1, description="most pings decided and committed at once")
    keep_pings_days: int = Field(
        90, ge=0, description="days after which raw pings are dropped; 0: never. Decisions are kept"
    )
    keep_check_ins_days: int = Field(0, ge=0, description="the same of check-ins; 0: never")
    keep_command_results_days: int = Field(0, ge=0, description="of what devices did with commands; 0: never")
    keep_transitions_days: int = Field(0, ge=0, description="of transitions; 0: never")
    keep_violations_days: int = Field(0, ge=0, description="of violations that are over; 0: never")
    keep_quarantine_days: int = Field(30, ge=0, description="of messages that can't be read; 0: never")
    keep_outbox_days: int = Field(30, ge=0, description="of messages to operators that were sent; 0: never")
    quarantine_mb: int = Field(1024, ge=0, description="most that the quarantine takes on disk; 0: no bound")
    snapshot_s: float = Field(30.0, gt=0, description="seconds between snapshots")
    tick_s: float = Field(
        1.0, gt=0, description="seconds between looks at the clock (silence, schedule edges)"
    )
    log_format: Literal["console", "json"] = Field(
        "console", description="how the log is written: for people, or a JSON object a line"
    )
    webhooks: tuple[WebhookSettings, ...] = Field(
        (), description="receivers by HTTP; tables [[webhooks]] of the settings file"
    )
    email: EmailSettings | None = Field(None, description="mail server; table [email] of the settings file")
    owntracks_transitions: bool = Field(
        False, description="also publish entering and leaving as OwnTracks transition messages"
    )
    home_assistant: str | None = Field(
        None, description="prefix of Home Assistant's MQTT discovery, usually homeassistant; left out: none"
    )

    @field_validator("http")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            raise ValueError(
                f"{value!r} is not HOST:PORT; write for example {DEFAULT_HTTP} (port 0: a free one)"
            )
        return value

    @field_validator("mqtt_url")
    @classmethod
    def _mqtt_scheme(cls, value: str | None) -> str | None:
        if value is not None and (
            urlsplit(value).scheme not in {"mqtt", "mqtts"} or not urlsplit(value).hostname
        ):
            raise ValueError("write it as mqtt://user:password@host:1883, or mqtts:// for TLS")
        return value

    @field_validator("database_url")
    @classmethod
    def _database_scheme(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).scheme not in {"postgresql", "postgres"}:
            raise ValueError("write it as postgresql://user:password@host:5432/database")
        return value

    @field_validator("formats", mode="before")
    @classmethod
    def _formats_as_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return dict(item.strip().rpartition("=")[::2] for item in value.split(",") if item.strip())

    @field_validator("formats")
    @classmethod
    def _known_formats(cls, value: dict[str, str]) -> dict[str, str]:
        for text, name in value.items():
            Pattern.of(text)
            if name not in KIND_OF_FORMAT:
                raise ValueError(
                    f"topic pattern {text!r}: no format is called {name!r}; "
                    f"there are {', '.join(KIND_OF_FORMAT)}"
                )
        return value

    @field_validator("mqtt_root")
    @classmethod
    def _root(cls, value: str) -> str:
        if not value or set(value) & set("+#\0") or value.startswith("/") or value.endswith("/"):
            raise ValueError(f"{value!r} can't be a topic root; it has no + or #, and no slash at its ends")
        return value

    @field_validator("home_assistant")
    @classmethod
    def _prefix(cls, value: str | None) -> str | None:
        return None if value is None else cls._root(value)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [webhook.name for webhook in self.webhooks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'two webhooks are called "{name}"; give each a name of its own')
        return self

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        for cert, key in (("http_cert", "http_key"), ("mqtt_cert", "mqtt_key")):
            if (getattr(self, cert) is None) != (getattr(self, key) is None):
                raise ValueError(f"{cert} and {key} go together; give both, or none")
        return self

    @property
    def http_is_loopback(self) -> bool:
        """Whether API and console can be reached from this machine alone."""
        return _is_loopback(self.http_host)

    @property
    def proxied_names(self) -> tuple[str, ...]:
        """Names by which a proxy reaches API and console; whoever comes that way is somewhere else."""
        names = self.allowed_hosts.replace(" ", "").split(",")
        return tuple(name for name in names if name and not _is_loopback(name))

    @property
    def mqtt_own_cert(self) -> tuple[Path, Path] | None:
        """Certificate and key that we show to the broker."""
        return None if self.mqtt_cert is None or self.mqtt_key is None else (self.mqtt_cert, self.mqtt_key)

    @property
    def http_scheme(self) -> str:
        """With TLS where there is a certificate."""
        return "http" if self.http_cert is None else "https"

    @property
    def http_host(self) -> str:
        """The host of ``http``, without brackets."""
        return self.http.rpartition(":")[0].strip("[]")

    @property
    def http_port(self) -> int:
        """The port of ``http``; 0: any free one."""
        return int(self.http.rpartition(":")[2])

    def redacted(self) -> dict[str, Any]:
        """All settings as plain values, without passwords: what may be printed."""
        shown: dict[str, Any] = _plain(self.model_dump())
        return shown


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """Settings from file, environment and flags; flags that are None were not given.

    Raises SettingsError with one line for each wrong setting.
    """
    path = config or (Path(os.environ["RINGFENCE_CONFIG"]) if os.environ.get("RINGFENCE_CONFIG") else None)
    sources = [
        (f"settings file {path}: ", _read_toml(path) if path else {}),
        (
            "RINGFENCE_",
            {
                name: value
                for name in Settings.model_fields
                if (value := os.environ.get(f"RINGFENCE_{name.upper()}"))
            },
        ),
        ("--", {name: value for name, value in flags.items() if value is not None}),
    ]
    values: dict[str, Any] = {}
    came_from: dict[str, str] = {}
    for source, given in sources:
        values |= given
        came_from |= dict.fromkeys(given, source)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_problem(item, came_from) for item in error.errors())) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(
            f"settings file {path}: {error.strerror}; give one that exists with --config"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings file {path}: {error}; correct the TOML there") from error


def _problem(item: Any, came_from: dict[str, str]) -> str:
    if not item["loc"]:  # about several settings at once
        return str(item["msg"]).removeprefix("Value error, ")
    name = str(item["loc"][0]) if item["loc"] else ""  # none: it is about several settings
    source = came_from.get(name, "")
    if len(item["loc"]) > 1 or name in {"webhooks", "email"}:
        return _nested_problem(item, source)
    if item["type"] == "extra_forbidden":
        known = ", ".join(Settings.model_fields)
        return f"{source}no setting is called {name}; there are {known}"
    shown = {"--": name.replace("_", "-"), "RINGFENCE_": name.upper()}.get(source, name)
    return f"{source}{shown}: {item['msg'].removeprefix('Value error, ')}"


def _nested_problem(item: Any, source: str) -> str:
    """A problem inside a table: ``webhooks[0].url``. Its value is not quoted: it may be a secret."""
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"])[1:]
    said = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        said = "there is no such key"
    elif item["type"] == "missing":
        said = "it is missing"
    return f"{source}{where}: {said}; docs/channels.md lists the keys"


def _plain(value: Any, name: str = "") -> Any:
    """What ``--print-config`` can print: no password, no secret, of a webhook's URL only who is asked."""
    if isinstance(value, dict):
        return {key: _plain(item, key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if isinstance(value, SecretStr):
        return "***"
    if name == "url":
        parts = urlsplit(value)
        return f"{parts.scheme}://{parts.netloc}/***"  # many receivers tell who may post by the path
    if name.endswith("_url") and value:
        return _without_password(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    query = re.sub(r"(?<![^&])((?:ssl)?password)=[^&]*", r"\1=***", parts.query)  # libpq takes it there too
    netloc = parts.netloc if parts.password is None else parts.netloc.replace(f":{parts.password}@", ":***@")
    return parts._replace(netloc=netloc, query=query).geturl()
