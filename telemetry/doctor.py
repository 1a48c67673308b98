"""``ringfence doctor``: looks at everything that the engine leans on, and says how to mend what is wrong.

It changes nothing: no directory is made, no schema migrated, and what it publishes is not retained.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from telemetry.services.state import RunningUp, read_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Check", "check_clock", "run_checks"]

MIN_FREE_BYTES: Final = 1 << 30  # a day of pings of 10,000 devices, one a minute
MIN_FREE_INODES: Final = 1_000
MAX_CLOCK_OFF_S: Final = 60.0  # beyond it the engine marks good pings as `clock_off`
PUBACK_S: Final = 5.0
NOT_RUNNING: Final = "embedded, and not running on this data directory now; `ringfence up` starts it"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. ``remedy`` is set when it is not in order."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None


class DoctorSettings(Protocol):
    """The settings that are looked at; telemetry.config.Settings has them."""

    @property
    def mqtt_url(self) -> str | None: ...
    @property
    def mqtt_ca(self) -> Path | None: ...
    @property
    def mqtt_own_cert(self) -> tuple[Path, Path] | None: ...
    @property
    def mqtt_protocol(self) -> str: ...
    @property
    def mqtt_root(self) -> str: ...
    @property
    def formats(self) -> dict[str, str]: ...
    @property
    def database_url(self) -> str | None: ...
    @property
    def data_dir(self) -> Path: ...
    @property
    def rules(self) -> Path | None: ...


def run_checks(settings: DoctorSettings) -> list[Check]:
    """Every check, in the order in which the engine would stumble."""
    running = read_state(settings.data_dir)
    mqtt_url = settings.mqtt_url or (running and running.mqtt_url)
    database_url = settings.database_url or (running and running.database_url)
    return [
        _data_directory(settings.data_dir, running),
        *_disk(settings.data_dir),
        check_clock(settings.data_dir),
        _broker(mqtt_url, settings) if mqtt_url else _embedded_broker(),
        *(_database(database_url) if database_url else [_embedded_database()]),
        _rules(settings.rules),
    ]


# --- this machine ---------------------------------------------------------------------------------


def _data_directory(data_dir: Path, running: RunningUp | None) -> Check:
    name, remedy = "data directory", "give another with --data-dir, or correct its owner and mode"
    existing = _nearest_existing(data_dir)
    if not existing.is_dir():
        return Check(name, ok=False, detail=f"{existing} is not a directory", remedy=remedy)
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check(name, ok=False, detail=f"{existing} is not writable", remedy=remedy)
    if existing != data_dir:
        return Check(name, ok=True, detail=f"{data_dir} will be made by the first `ringfence up`")
    who = f"in use by ringfence up (process {running.pid})" if running else "not in use"
    return Check(name, ok=True, detail=f"{data_dir}, {who}")


def _disk(data_dir: Path) -> Iterator[Check]:
    directory = _nearest_directory(data_dir)
    free_bytes = shutil.disk_usage(directory).free
    space = os.statvfs(directory)
    detail = f"{free_bytes / 1e9:.1f} GB free at {directory}"
    remedy = "make room there, or give another --data-dir; with a full disk nothing is stored or acknowledged"
    few_inodes = space.f_files > 0 and space.f_favail < MIN_FREE_INODES  # some file systems count none
    if few_inodes:
        detail += f", and {space.f_favail} inodes"
    ok = free_bytes >= MIN_FREE_BYTES and not few_inodes
    yield Check("disk", ok=ok, detail=detail, remedy=None if ok else remedy)


def check_clock(data_dir: Path) -> Check:
    """Compare this process's clock with the file system's, and with what the data directory has seen.

    The database's clock is compared where the database is checked.
    """
    name, remedy = "clock", "set the clock, and keep it right with NTP (timedatectl set-ntp true)"
    directory = _nearest_directory(data_dir)
    off_s = _away_from_file_system(directory)
    if off_s is not None and off_s > MAX_CLOCK_OFF_S:
        detail = f"{_span(off_s)} away from the file system's clock"
        return Check(name, ok=False, detail=detail, remedy=remedy)
    now_s = time.time()
    newest_s = max(_file_times(directory), default=now_s)
    if newest_s - now_s > MAX_CLOCK_OFF_S:
        detail = f"{_span(newest_s - now_s)} behind: {directory} holds files that are newer than now"
        return Check(name, ok=False, detail=detail, remedy=remedy)
    detail = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
    if off_s is None:
        detail += f"; not compared with the file system's, as {directory} can't be written"
    return Check(name, ok=True, detail=detail)


def _file_times(directory: Path) -> Iterator[float]:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:  # not ours to list, perhaps
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # a running `up` replaces files
                yield entry.stat(follow_symlinks=False).st_mtime


def _away_from_file_system(directory: Path) -> float | None:
    """How far this process's clock is from the one that stamps files, in seconds; None: not writable."""
    began_s = time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:  # has no name, so nothing is left of it
            probe.write(b"\0")
            probe.flush()
            off_s = abs(time.time() - os.fstat(probe.fileno()).st_mtime)
    except OSError:
        return None
    return max(0.0, off_s - (time.monotonic() - began_s))


# --- the broker -----------------------------------------------------------------------------------


def _embedded_broker() -> Check:
    from telemetry.services.broker import find_program  # noqa: PLC0415
    from telemetry.services.errors import ServiceError  # noqa: PLC0415

    try:
        program = find_program()
    except ServiceError as error:
        return Check("broker", ok=False, detail="the embedded broker can't be started", remedy=str(error))
    return Check("broker", ok=True, detail=f"{NOT_RUNNING} ({program})")


def _broker(url: str, settings: DoctorSettings) -> Check:
    """Connect, log in, subscribe to what the engine subscribes to, publish where its heartbeat goes."""
    from telemetry.columns import Outgoing  # noqa: PLC0415
    from telemetry.mqtt.session import MqttError, Session  # noqa: PLC0415
    from telemetry.mqtt.topics import Topics, subscriptions  # noqa: PLC0415

    root = settings.mqtt_root
    probe = Outgoing(
        alert_id=0, device_id="", topic=f"{root}/engine/doctor/status", payload=b"{}", retain=False
    )
    try:
        session = Session(
            url,
            f"ringfence-doctor-{secrets.token_hex(4)}",
            subscriptions(root, settings.formats),
            topics=Topics(root),
            clean=True,
            ca_file=settings.mqtt_ca,
            own_cert=settings.mqtt_own_cert,
            protocol=settings.mqtt_protocol,
        )
        try:
            session.start()  # has failed unless every subscription was granted
            acknowledged = all(session.publish([probe], PUBACK_S))
        finally:
            session.close(1.0)
    except MqttError as error:
        return _failed("broker", error)
    if not acknowledged:
        return Check(
            "broker",
            ok=False,
            detail=f"a message to {probe.topic} was not acknowledged within {PUBACK_S:.0f} s",
            remedy=f"let this user write {root}/alerts/# and {root}/engine/#, and look at its disk",
        )
    return Check(
        "broker", ok=True, detail=f"{_shown(url)}: connected, every subscription granted, publishing works"
    )


# --- the database ---------------------------------------------------------------------------------


def _embedded_database() -> Check:
    from telemetry.services.errors import ServiceError  # noqa: PLC0415
    from telemetry.services.postgres_home import installed_binaries  # noqa: PLC0415

    try:
        installed = installed_binaries()
    except ServiceError as error:
        return Check("database", ok=False, detail="the embedded database can't be started", remedy=str(error))
    return Check("database", ok=True, detail=f"{NOT_RUNNING} ({installed})")


def _database(url: str) -> Iterator[Check]:
    """Connect and ask: version, clock, extension, schema, and whether it can be written."""
    from telemetry.store.connect import connect, shown  # noqa: PLC0415
    from telemetry.store.errors import StoreError, translated  # noqa: PLC0415
    from telemetry.store.schema import VERSION, layout_of  # noqa: PLC0415

    checked = "database"
    try:
        with connect(url, "ringfence-doctor") as connection, translated("looking at the database"):
            row = connection.execute(ABOUT_SQL).fetchone()
            assert row is not None
            about = _About(*row)
            off_s = time.time() - about.clock_s
            yield Check(checked, ok=True, detail=f"{shown(url)}: PostgreSQL {about.version}, connected")

            checked = "database clock"
            ok = abs(off_s) <= MAX_CLOCK_OFF_S
            detail = f"{_span(abs(off_s))} {'behind' if off_s > 0 else 'ahead of'} this machine's"
            yield Check(checked, ok=ok, detail=detail, remedy=None if ok else REMEDY_CLOCKS)

            checked = "extension"
            yield Check(checked, ok=True, detail=_extension(about))

            checked = "schema"
            version, layout = layout_of(connection)
            if layout is None:
                detail = "none yet; `ringfence up` makes it"
            else:
                detail = f"version {version} of {VERSION}, {layout.name}"
                if version < VERSION:
                    detail += "; `ringfence up` migrates it"
            yield Check(checked, ok=True, detail=detail)

            checked = "database writable"
            yield _writable(about)
    except StoreError as error:
        yield _failed(checked, error)


ABOUT_SQL: Final = """
SELECT current_setting('server_version'),
       extract(epoch FROM clock_timestamp())::float8,
       (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
       (SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'),
       pg_is_in_recovery(),
       current_setting('transaction_read_only') = 'on',
       coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
       coalesce(has_table_privilege(to_regclass('pings'), 'INSERT'), true)
"""
REMEDY_CLOCKS: Final = "set both clocks with NTP; a ping's received time and its row's must agree"


@dataclass(frozen=True, slots=True)
class _About:
    version: str
    clock_s: float
    installed: str | None
    available: str | None
    standby: bool
    read_only: bool
    may_create: bool
    may_insert: bool


def _extension(about: _About) -> str:
    if about.installed:
        return f"timescaledb {about.installed}"
    if about.available:
        return f"timescaledb {about.available} is on the server; `ringfence up` installs it in a new database"
    return "no TimescaleDB on this server: native daily partitions are used"


def _writable(about: _About) -> Check:
    problem = None
    if about.standby:
        problem = "it is a standby", "let the URL name the primary (target_session_attrs=read-write)"
    elif about.read_only:
        problem = "transactions are read-only", "ALTER ROLE … SET default_transaction_read_only = off"
    elif not about.may_create:
        problem = "this role may not make tables", "GRANT CREATE ON SCHEMA public TO …"
    elif not about.may_insert:
        problem = (
            "this role may not write table pings",
            "use the role that made the tables, or grant it INSERT",
        )
    if problem is None:
        return Check("database writable", ok=True, detail="this role may make tables and write them")
    return Check("database writable", ok=False, detail=problem[0], remedy=problem[1])


# --- rules, and how things are said ---------------------------------------------------------------


def _rules(directory: Path | None) -> Check:
    if directory is None:
        return Check("rules", ok=True, detail="no directory given: those stored in the database are used")
    from geofence import GeofenceError, Ruleset  # noqa: PLC0415

    try:
        ruleset = Ruleset.load(directory)
    except (GeofenceError, OSError) as error:
        remedy = "correct what is named; nothing is loaded until all of it is right"
        return Check("rules", ok=False, detail=str(error), remedy=remedy)
    detail = f"{directory}: {len(ruleset.rules)} rules, {len(ruleset.zones)} zones"
    if ruleset.warnings:
        detail += "; warnings: " + "; ".join(ruleset.warnings)
    return Check("rules", ok=True, detail=detail)


def _failed(name: str, error: Exception) -> Check:
    """Errors of our own read "what is wrong; what to do"."""
    what, _, remedy = str(error).partition("; ")
    return Check(name, ok=False, detail=what, remedy=remedy or "see the message")


def _nearest_existing(path: Path) -> Path:
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _nearest_directory(path: Path) -> Path:
    existing = _nearest_existing(path)
    return existing if existing.is_dir() else existing.parent


def _shown(url: str) -> str:
    """The broker's URL as it may be printed: without password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _span(seconds: float) -> str:
    """A time span as a person says it."""
    for unit, size_s in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.0f} {unit}"
    return f"{seconds:.1f} s"
