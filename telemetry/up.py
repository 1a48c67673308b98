"""``ringfence up``: starts what is needed, in order, runs it, and takes it down in the opposite order."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Self

import uvicorn

from geofence import GeofenceError, Ruleset
from telemetry import warm
from telemetry.api.app import create_app
from telemetry.channels.dispatch import Dispatch
from telemetry.commander import Commander
from telemetry.config import Settings, SettingsError
from telemetry.heartbeat import EngineHealth, Heartbeat, Trouble
from telemetry.housekeeper import Housekeeper
from telemetry.metrics import Metrics
from telemetry.mqtt.session import Session
from telemetry.mqtt.topics import Topics, subscriptions
from telemetry.rules_watch import RulesWatch
from telemetry.services.broker import EmbeddedBroker
from telemetry.services.datadir import DataDirLock
from telemetry.services.errors import ServiceError
from telemetry.services.postgres import EmbeddedPostgres
from telemetry.services.state import RunningUp, clear_state, write_state
from telemetry.share import RulesVersion, Share
from telemetry.store import Reader, Retention, Store, StoreError
from telemetry.store.keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from telemetry.columns import Outgoing

__all__ = ["Up", "run_up"]

log = logging.getLogger(__name__)

STOP_S: Final = 13.5  # in all; an operator's limit is 15 s
STOP_SERVERS_S: Final = 6.0  # of which the servers keep this much, should the database hang
STOP_FLEET_S: Final = 3.0
STOP_SHARE_S: Final = 8.0
HUNG_S: Final = 0.3  # for each thread that may wait for a database which hangs
STOP_NOTIFIER_S: Final = 2.0
STOP_HOUSEKEEPER_S: Final = 0.5
STOP_SESSION_S: Final = 1.0
STOP_WATCH_S: Final = 0.5
STOP_COMMANDER_S: Final = 0.5
STOP_HTTP_S: Final = 2.0
HEARTBEAT_S: Final = 10.0
SICK_S: Final = 30.0  # no session with our own broker for so long; one waits up to 15 s between two tries


def run_up(settings: Settings, say: Callable[[str], None]) -> int:
    """Run until Ctrl-C or SIGTERM. ``say`` takes a line of progress. Gives the exit status.

    Raises the errors of what it starts, each with its remedy; whatever was started before is stopped.
    """
    stop = threading.Event()
    reload = threading.Event()
    handlers = {
        signal.SIGINT: lambda *_: stop.set(),
        signal.SIGTERM: lambda *_: stop.set(),
        signal.SIGHUP: lambda *_: reload.set(),
    }
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with Up(settings, say, stop.is_set) as up:
            if not stop.is_set():
                up.serve(stop, reload)
            say("stopping: taking what was received, committing, acknowledging")
    except warm.Interrupted:
        say("stopped while starting")
        return 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    say("stopped")
    return 0 if up.failure is None else 1


class Up:
    """All parts of a running engine on one machine. A context manager: entering starts, leaving stops."""

    def __init__(
        self, settings: Settings, say: Callable[[str], None], stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self.settings = settings
        self.failure: str | None = None
        self._say = say
        self._stopping = stopping
        self._stack = ExitStack()
        self._began_s = time.monotonic()
        self._servers: dict[str, EmbeddedPostgres | EmbeddedBroker] = {}
        self._stop_by_s: float | None = None  # when a stop that has begun must be over
        self._database_hangs = False

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        self._stop_by_s = time.monotonic() + STOP_S
        self._stack.close()

    def _stop(self, stop: Callable[[float], object], most_s: float) -> None:
        """Stop a part that may wait for the database, within its time; soon, where the database hangs."""
        self._stack.callback(lambda: stop(HUNG_S if self._database_hangs else most_s))

    @property
    def _left_s(self) -> float:
        return STOP_S if self._stop_by_s is None else self._stop_by_s - time.monotonic()

    # --- starting, in order; the stack takes it down in the opposite order ------------------------

    def _start(self) -> None:
        settings, say, stack = self.settings, self._say, self._stack
        stack.enter_context(DataDirLock(settings.data_dir))
        # bad rules are told of before a broker and a database are started for them
        given = None if settings.rules is None else Ruleset.load(settings.rules)
        listener = stack.enter_context(_listen(settings))
        warm.load_engine(say, self._stopping)
        database_url = settings.database_url or self._start_postgres()
        mqtt_url = settings.mqtt_url or self._start_broker()
        self._database_url = database_url
        store = Store.open(database_url, retention=_retention(settings))
        self._store = stack.enter_context(contextlib.closing(store))
        self._store.migrate()
        say(f"database ready ({self._store.extension or 'native partitions'})")
        self._check_door(database_url)
        rules = self._load_rules(given)
        for warning in rules.ruleset.warnings:
            say(f"warning: {warning}")
        ruleset = rules.ruleset
        say(f"rules version {rules.version}: {len(ruleset.rules)} rules, {len(ruleset.zones)} zones")

        self.metrics = Metrics()
        self._start_dispatch(database_url, mqtt_url)
        self._start_commander(database_url)
        self._start_housekeeper(database_url)
        self._start_share(mqtt_url, rules)
        if settings.rules is None:
            self._start_rules_watch(database_url, rules.version)
        host, port = _shown_host(settings.http_host), listener.getsockname()[1]
        self.http_url = f"{settings.http_scheme}://{host}:{port}"
        self._start_http(listener, database_url)
        write_state(
            settings.data_dir,
            RunningUp.of_this_process(mqtt_url=mqtt_url, database_url=database_url, http_url=self.http_url),
        )
        stack.callback(clear_state, settings.data_dir)
        if settings.simulate:
            self._start_fleet(mqtt_url)
        say(f"ready after {time.monotonic() - self._began_s:.1f} s: console and API at {self.http_url}")

    def _check_door(self, database_url: str) -> None:
        """Off loopback nobody may be let in unknown; and what is known must not be read on the way."""
        settings = self.settings
        with contextlib.closing(KeyRing.open(database_url, by="ringfence up")) as keys:
            some = keys.any()
        if settings.proxied_names and not some:
            raise SettingsError(
                f"allowed_hosts names {', '.join(settings.proxied_names)}, so a proxy brings people from "
                "elsewhere, and there is neither account nor token; start without allowed_hosts, make one "
                "with `ringfence user add` or `ringfence token add`, and start again"
            )
        if settings.http_is_loopback:
            return
        if not some:
            raise SettingsError(
                f"{settings.http} can be reached from other machines, and there is neither account nor "
                "token; start with --http 127.0.0.1:8750, make one with `ringfence user add` or "
                "`ringfence token add`, and start again"
            )
        if settings.http_cert is None:
            self._say(
                f"warning: {settings.http} is served without TLS, so passwords and tracks can be read on the "
                "way; set http_cert and http_key, or let a reverse proxy on this machine speak TLS"
            )

    def _start_postgres(self) -> str:
        postgres = EmbeddedPostgres(self.settings.data_dir, self._say)
        self._stack.callback(lambda: postgres.stop(max(self._left_s, 3.0)))
        self._servers["database"] = postgres
        return postgres.start()

    def _start_broker(self) -> str:
        broker = EmbeddedBroker(self.settings.data_dir, self.settings.mqtt_port, self._say)
        self._stack.callback(broker.stop)
        self._servers["broker"] = broker
        url = broker.start()
        self._say(f"its configuration is {broker.config_path}")
        return url

    def _load_rules(self, given: Ruleset | None) -> RulesVersion:
        if given is not None:
            return _number(self._store, given)
        if self.settings.simulate:
            ruleset = Ruleset.load(self._city_rules())
            if not self._store.knows_ruleset(ruleset.digest):  # else what operators made of them stands
                return _number(self._store, ruleset)
        stored = self._store.ruleset_in_force()
        if stored is not None:
            version, document, effective_us = stored
            return RulesVersion(version, Ruleset.from_document(document), effective_us)
        empty = {"zones": {"type": "FeatureCollection", "features": []}, "rules": {}}
        return _number(self._store, Ruleset.from_document(empty))

    def _city_rules(self) -> Path:
        """The zones and rules of the simulated city, written where a person can read them."""
        from firmware_sim.scenario import build, load, write_rules  # noqa: PLC0415 - only with --simulate

        directory = self.settings.data_dir / "simulated-rules"
        write_rules(build(load("city"), self.settings.simulate, self.settings.simulate_seed), directory)
        return directory

    def _start_dispatch(self, database_url: str, mqtt_url: str) -> None:
        self._notify_session = self._session(mqtt_url, "notify", [])
        self._dispatch = Dispatch(self.settings, database_url, self._notify_session, self.metrics)
        self._dispatch.start()
        self._stop(self._dispatch.stop, STOP_NOTIFIER_S)

    def _start_commander(self, database_url: str) -> None:
        store = self._stack.enter_context(contextlib.closing(Store.open(database_url)))
        commander = Commander(store, self._notify_session, self.settings.mqtt_root)
        commander.start()
        self._stop(commander.stop, STOP_COMMANDER_S)

    def _start_housekeeper(self, database_url: str) -> None:
        store = Store.open(database_url, retention=_retention(self.settings))
        self._stack.callback(store.close)
        housekeeper = Housekeeper(store)
        housekeeper.start()
        self._stop(housekeeper.stop, STOP_HOUSEKEEPER_S)

    def _start_share(self, mqtt_url: str, rules: RulesVersion) -> None:
        root, number = self.settings.mqtt_root, self.settings.share
        self._heartbeat = Heartbeat(root, number)
        self._share_session = self._session(
            mqtt_url,
            "share",
            subscriptions(root, self.settings.formats),
            start=False,
            will=self._heartbeat.message("lost"),
        )
        self.share = Share(self.settings, self._store, self._share_session, self.metrics, self._dispatch.wake)
        self.share.start(rules)
        self._share_session.start()
        self._share_thread = threading.Thread(target=self.share.run, name=f"share-{number}", daemon=True)
        self._share_thread.start()
        self._stack.callback(self._stop_share)
        self._dispatch.watch(lambda: self.share.ruleset.escalation)

    def _start_rules_watch(self, database_url: str, newest: int) -> None:
        store = self._stack.enter_context(contextlib.closing(Store.open(database_url)))
        watch = RulesWatch(store, newest, self.share.adopt)
        watch.start()
        self._stop(watch.stop, STOP_WATCH_S)

    def _session(
        self,
        mqtt_url: str,
        role: str,
        filters: list[str],
        *,
        start: bool = True,
        will: Outgoing | None = None,
    ) -> Session:
        session = Session(
            mqtt_url,
            f"ringfence-{role}-{self.settings.share}",  # fixed: whoever connects as the share takes it over
            filters,
            topics=Topics(self.settings.mqtt_root, self.settings.formats),
            will=will,
            ca_file=self.settings.mqtt_ca,
            own_cert=self.settings.mqtt_own_cert,
            protocol=self.settings.mqtt_protocol,
        )
        self._stack.callback(session.close, STOP_SESSION_S)
        if start:
            session.start()
        return session

    def _stop_share(self) -> None:
        self.share.stop()
        self._share_thread.join(max(min(STOP_SHARE_S, self._left_s - STOP_SERVERS_S), 0.5))
        if self._share_thread.is_alive():
            self._say("the database does not answer: what was not committed stays with the broker")
            self._database_hangs = True
            self.share.abandon()
            self._share_thread.join(HUNG_S)
        if not self.share.taken_over:
            self._share_session.publish([self._heartbeat.message("stopped")], STOP_SESSION_S)

    def _start_http(self, listener: socket.socket, database_url: str) -> None:
        settings = self.settings
        app = create_app(
            Reader(database_url),
            EngineHealth(self),
            zones_read_only=self.settings.rules is not None,
            version=version("ringfence"),
            tile_url=self.settings.tile_url,
            allowed_hosts=_allowed_hosts(settings),
            loopback=settings.http_is_loopback,
            keys_needed=bool(settings.proxied_names),
            session_s=settings.session_hours * 3600,
            reason_needed=settings.require_reason
            and (not settings.http_is_loopback or bool(settings.proxied_names)),
        )
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # addresses of requests hold whom somebody looked at
            server_header=False,
            timeout_graceful_shutdown=1,
            ssl_certfile=settings.http_cert,
            ssl_keyfile=settings.http_key,
        )
        try:
            config.load()
        except OSError as error:  # also of TLS
            raise SettingsError(
                f"http_cert {settings.http_cert} with http_key {settings.http_key} can't be used ({error}); "
                "give PEM files that belong together, readable by this user"
            ) from error
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.01)

        def end() -> None:
            app.state.hub.close_soon()  # else each open page would cost the whole grace
            server.should_exit = True
            thread.join(STOP_HTTP_S)

        self._stack.callback(end)

    def _start_fleet(self, mqtt_url: str) -> None:
        """The simulated devices run in a process of their own, as devices would."""
        command = [sys.executable, "-m", "telemetry.cli", "simulate", "--quiet", "--until-input-ends"]
        command += ["--devices", str(self.settings.simulate), "--seed", str(self.settings.simulate_seed)]
        environment = os.environ | {
            "RINGFENCE_MQTT_URL": mqtt_url,
            "RINGFENCE_MQTT_ROOT": self.settings.mqtt_root,
        }
        # a pipe: should this engine be killed, its fleet ends, or the next start would make a second one
        fleet = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)  # noqa: S603 - our own program
        self._say(f"{self.settings.simulate} simulated devices started")

        def end() -> None:
            fleet.terminate()
            try:
                fleet.wait(STOP_FLEET_S)
            except subprocess.TimeoutExpired:
                fleet.kill()
                fleet.wait()
            assert fleet.stdin is not None
            fleet.stdin.close()

        self._stack.callback(end)

    # --- running --------------------------------------------------------------------------------

    def serve(self, stop: threading.Event, reload: threading.Event) -> None:
        """Beat, reload rules when asked, until ``stop`` or until the share ends by itself."""
        next_beat_s = served_s = time.monotonic()
        trouble = Trouble(self._say)
        while not stop.wait(0.2):
            if not self._share_thread.is_alive():
                self.failure = self.share.failure or "the share ended"
                self._say(f"error: {self.failure}")
                return
            for name, server in self._servers.items():
                if server.pid is None:
                    self._say(f"the embedded {name} ended by itself; starting it again")
                    self._start_again(server.start)
            broker = self._servers.get("broker")
            if self._share_session.ready or not isinstance(broker, EmbeddedBroker):
                served_s = time.monotonic()
            elif time.monotonic() > served_s + SICK_S:
                self._say(f"the embedded broker serves nobody (see {broker.log_path}); starting it again")
                self._start_again(broker.restart)
                served_s = time.monotonic()
            if reload.is_set():
                reload.clear()
                self._reload_rules()
            trouble.look(self.not_ready())
            if time.monotonic() >= next_beat_s:
                next_beat_s = time.monotonic() + HEARTBEAT_S
                self._share_session.publish([self._heartbeat.of(self.share, self.metrics)], 1.0)

    def _start_again(self, start: Callable[[], object]) -> None:
        try:
            start()
        except (ServiceError, OSError) as error:  # a full disk is an OSError
            self._say(f"error: {error}")
            time.sleep(1)  # and again at the next turn

    @property
    def broker_problem(self) -> str | None:
        """Why the share has no broker; None: it has."""
        return self._share_session.problem

    def not_ready(self) -> list[str]:
        """Why this engine is not ready; empty: it is."""
        reasons = [self.broker_problem, self.share.problem]
        return [reason for reason in reasons if reason is not None]

    def _reload_rules(self) -> None:
        directory = self.settings.rules
        if directory is None:
            self._say("SIGHUP: no rules directory was given, so there is nothing to reload")
            return
        try:
            with contextlib.closing(Store.open(self._database_url)) as store:  # the other is the share's
                rules = _number(store, Ruleset.load(directory))
        except (GeofenceError, StoreError) as error:
            self._say(f"rules not reloaded, the old ones stay in force:\n{error}")
            return
        self.share.adopt(rules)
        self._say(f"rules version {rules.version} adopted")


def _retention(settings: Settings) -> Retention:
    """For how long each table keeps its rows; 0 in the settings is for ever."""
    return Retention.of_pings(
        settings.keep_pings_days or None,
        check_ins=settings.keep_check_ins_days or None,
        command_results=settings.keep_command_results_days or None,
        transitions=settings.keep_transitions_days or None,
        violations=settings.keep_violations_days or None,
        quarantine=settings.keep_quarantine_days or None,
        outbox=settings.keep_outbox_days or None,
        quarantine_bytes=(settings.quarantine_mb << 20) or None,
    )


def _number(store: Store, ruleset: Ruleset) -> RulesVersion:
    """Store these rules as a version that holds from now on, or find the version that they are already."""
    number = store.save_ruleset(ruleset.document, ruleset.digest, time.time_ns() // 1000)
    stored = store.load_ruleset(number)
    assert stored is not None
    return RulesVersion(number, ruleset, stored[2])  # of a version found, the time at which it took effect


def _allowed_hosts(settings: Settings) -> tuple[str, ...]:
    """Names by which the API may be asked for: those that are set, and off loopback this machine's own."""
    names = set(filter(None, settings.allowed_hosts.replace(" ", "").split(",")))
    if not settings.http_is_loopback:
        names |= {settings.http_host, socket.gethostname(), socket.getfqdn()}
    return tuple(sorted(names))


def _shown_host(host: str) -> str:
    """The host in an address that can be opened on this machine."""
    if host in {"0.0.0.0", "::"}:
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"
    return f"[{host}]" if ":" in host else host


def _listen(settings: Settings) -> socket.socket:
    """The listening socket, bound before anything slow starts, so that a taken port is told at once."""
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    # TCP by name: with protocol 0 asyncio leaves Nagle's delay on, 42 ms for each further request
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.http_host, settings.http_port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"{settings.http}: {error.strerror}; give another with --http or RINGFENCE_HTTP (port 0: any)"
        ) from error
    listener.listen(128)
    return listener
