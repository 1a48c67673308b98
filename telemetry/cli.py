"""The command ``ringfence``. Each subcommand imports what it needs, so that ``--help`` answers at once."""

from __future__ import annotations

import contextlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from telemetry.access.cli import audit_app
from telemetry.access.keys_cli import token_app, user_app
from telemetry.config import DEFAULT_HTTP, SettingsError, load_settings
from telemetry.options import Config, DataDir, Json, running_database_url
from telemetry.quarantine import app as quarantine_app
from telemetry.record import cli as record_commands

if TYPE_CHECKING:
    import httpx

__all__ = ["app", "main"]

USER_ERROR = 2

app = typer.Typer(
    name="ringfence",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
alerts_app = typer.Typer(help="What operators see.", no_args_is_help=True)
app.add_typer(alerts_app, name="alerts")
app.add_typer(audit_app, name="audit")
app.add_typer(user_app, name="user")
app.add_typer(token_app, name="token")
app.command("record")(record_commands.record)
app.command("erase")(record_commands.erase)
app.add_typer(quarantine_app, name="quarantine")

out = Console()
err = Console(stderr=True)

MqttUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="MQTT broker, as mqtt://user:password@host:1883. Left out: the embedded one.",
        show_default=False,
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="PostgreSQL or TimescaleDB: postgresql://user:password@host/name. Left out: the embedded one.",
        show_default=False,
    ),
]
Rules = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Directory with zones/*.geojson and rules.toml.", show_default=False),
]


def main() -> None:
    """Run the command; a user's error ends with status 2 and one message that says the remedy."""
    try:
        app()
    except Exception as error:
        if not _is_users_error(error):
            raise
        err.print(f"ringfence: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(USER_ERROR)


@app.callback()
def ringfence(
    *,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    """Check location pings against zones and times, store every decision, alert operators.

    Begin with `ringfence up --simulate 200`; `ringfence doctor` says what is wrong, and how to mend it.
    """
    if show_version:
        typer.echo(f"ringfence {version('ringfence')}")
        raise typer.Exit


@app.command()
def up(
    mqtt_url: MqttUrl = None,
    database_url: DatabaseUrl = None,
    rules: Rules = None,
    data_dir: DataDir = None,
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Address of API and console.", show_default=DEFAULT_HTTP),
    ] = None,
    simulate: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Also run this many simulated devices.")
    ] = None,
    simulate_seed: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Same seed, same fleet.", show_default="1")
    ] = None,
    mqtt_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Port of the embedded broker. Left out: a free one.")
    ] = None,
    mqtt_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Certificate authority (PEM) of a broker at mqtts://."),
    ] = None,
    mqtt_protocol: Annotated[
        str | None,
        typer.Option(metavar="VERSION", help="Of MQTT: 3.1.1 or 5.", show_default="3.1.1"),
    ] = None,
    tile_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Map tiles, as https://host/{z}/{x}/{y}.png. Left out: zones alone."
        ),
    ] = None,
    config: Config = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the settings in force and end.")
    ] = False,
    log_level: Annotated[
        str,
        typer.Option(
            metavar="LEVEL",
            help="debug, info, warning or error.",
            envvar="RINGFENCE_LOG_LEVEL",
            show_envvar=False,
        ),
    ] = "warning",
) -> None:
    """Run the engine: receive pings, decide, store, alert. Ctrl-C stops it cleanly.

    Without --mqtt-url and --database-url it starts a broker and a database of its own in the data directory.
    SIGHUP reads the rules again. Each option can be set in the environment too: --http as RINGFENCE_HTTP.
    """
    settings = load_settings(
        config,
        mqtt_url=mqtt_url,
        database_url=database_url,
        rules=rules,
        data_dir=data_dir,
        http=http,
        simulate=simulate,
        simulate_seed=simulate_seed,
        mqtt_port=mqtt_port,
        mqtt_ca=mqtt_ca,
        mqtt_protocol=mqtt_protocol,
        tile_url=tile_url,
    )
    if print_config:
        out.print_json(json.dumps(settings.redacted()))
        return
    _log_to_stderr(log_level, settings.log_format)

    from telemetry.logs import teller  # noqa: PLC0415
    from telemetry.up import run_up  # noqa: PLC0415

    raise typer.Exit(run_up(settings, teller(settings.log_format, _say)))


@app.command()
def check(
    pings: Annotated[
        Path,
        typer.Argument(
            metavar="PINGS", help="CSV or Parquet: device_id and the columns of JSON v1, any order."
        ),
    ],
    rules: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Directory with zones/*.geojson and rules.toml.", envvar="RINGFENCE_RULES"
        ),
    ],
    transitions: Annotated[bool, typer.Option("--transitions", help="Print transitions as well.")] = False,
    as_json: Json = False,
    out_file: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write the JSON there.", show_default=False)
    ] = None,
) -> None:
    """Decide over a file of pings with the same engine, and print the violations."""
    from telemetry import warm  # noqa: PLC0415
    from telemetry.check import check_file  # noqa: PLC0415

    warm.ensure(_say)
    result = check_file(rules, pings)
    for note in result.notes:
        err.print(note, style="yellow", highlight=False, markup=False, soft_wrap=True)
    document = result.document(transitions=transitions)
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if out_file is not None:
        try:
            out_file.write_text(text + "\n")
        except OSError as error:
            raise SettingsError(
                f"--out {out_file}: {error.strerror}; give a file that can be written"
            ) from error
    if as_json:
        typer.echo(text)
    elif out_file is None:
        _print_table("violations", document["violations"], ("severity", "opened_at", "closed_at", "sentence"))
        if transitions:
            _print_table("transitions", document["transitions"], ("device_id", "kind", "time", "zone_id"))


@app.command()
def simulate(
    mqtt_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Broker to publish to. Left out: that of the running `ringfence up`."
        ),
    ] = None,
    devices: Annotated[int, typer.Option(metavar="N", min=1, help="Number of devices.")] = 200,
    speed: Annotated[float, typer.Option(metavar="X", min=1.0, help="Simulated seconds per second.")] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Same seed, same fleet.")] = 1,
    scenario: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="city, border-homes, canyon, outage, storm, versions, or a TOML file."
        ),
    ] = "city",
    exact_sessions: Annotated[
        bool,
        typer.Option(
            "--exact-sessions",
            help="Give each device an MQTT session and a last will. Up to 64 devices have them anyway.",
        ),
    ] = False,
    truth: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what really happened there, as Parquet.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Stop after so many simulated seconds.")
    ] = None,
    write_rules: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Only write the city's zones and rules there, and end."),
    ] = None,
    data_dir: DataDir = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
    until_input_ends: Annotated[bool, typer.Option("--until-input-ends", hidden=True)] = False,
) -> None:
    """Run simulated ankle monitors, wristbands and check-in lines against any broker."""
    from telemetry.simulate import run_simulation, write_city_rules  # noqa: PLC0415

    if write_rules is not None:
        write_city_rules(scenario, devices, seed, write_rules)
        return
    settings = load_settings(mqtt_url=mqtt_url, data_dir=data_dir)
    run_simulation(
        settings,
        err,
        devices=devices,
        speed=speed,
        seed=seed,
        scenario=scenario,
        truth=truth,
        duration_s=duration,
        exact_sessions=exact_sessions or None,
        quiet=quiet,
        until_input_ends=until_input_ends,
    )


@app.command()
def doctor(
    mqtt_url: MqttUrl = None,
    database_url: DatabaseUrl = None,
    rules: Rules = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Check broker, database, extension, clock, disk and rules, and say how to mend what is wrong."""
    from telemetry.doctor import run_checks  # noqa: PLC0415
    from telemetry.services.state import read_state  # noqa: PLC0415

    settings = load_settings(
        config, mqtt_url=mqtt_url, database_url=database_url, rules=rules, data_dir=data_dir
    )
    running = read_state(settings.data_dir)
    checks = run_checks(settings)
    if as_json:
        report: dict[str, Any] = {
            "ok": all(item.ok for item in checks),
            "mqtt_url": settings.mqtt_url or (running and running.mqtt_url),
            "database_url": settings.database_url or (running and running.database_url),
            "http_url": running and running.http_url,
            "checks": [
                {"name": item.name, "ok": item.ok, "detail": item.detail, "remedy": item.remedy}
                for item in checks
            ],
        }
        typer.echo(json.dumps(report, indent=2))
    else:
        table = Table("check", "", Column("what was found", overflow="fold"), box=None)
        for item in checks:
            mark = Text("ok", "green") if item.ok else Text("wrong", "bold red")
            table.add_row(item.name, mark, Text(item.detail))
            if item.remedy:
                table.add_row("", "", Text(f"remedy: {item.remedy}", "yellow"))
        out.print(table)
    if not all(item.ok for item in checks):
        raise typer.Exit(1)


@app.command()
def replay(
    device: Annotated[str, typer.Argument(metavar="DEVICE", help="Id of the device.")],
    begin: Annotated[str, typer.Argument(metavar="FROM", help="RFC 3339 time, as 2026-11-24T08:00:00Z.")],
    end: Annotated[str, typer.Argument(metavar="TO", help="RFC 3339 time.")],
    database_url: DatabaseUrl = None,
    data_dir: DataDir = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Decide again about a device from what is stored, and compare with the decisions stored.

    Ends with status 1 and the rows when they differ.
    """
    from telemetry import warm  # noqa: PLC0415
    from telemetry.replay import read_times, replay_device  # noqa: PLC0415
    from telemetry.store import Store  # noqa: PLC0415

    settings = load_settings(config, database_url=database_url, data_dir=data_dir)
    url = running_database_url(settings)
    times = read_times(begin, end)
    warm.ensure(_say)
    with contextlib.closing(Store.open(url)) as store:
        result = replay_device(store, settings.share, device, *times)
    if as_json:
        typer.echo(json.dumps(result.document(), indent=2))
    else:
        out.print(
            f"{result.pings} pings, {result.decisions} stored decisions: "
            + (f"{len(result.differences)} rows differ" if result.differences else "the same again")
        )
        for difference in result.document()["differences"]:
            out.print(
                f"only {difference['side']}: {difference['table']} {json.dumps(difference['row'])}",
                soft_wrap=True,
            )
    if result.differences:
        raise typer.Exit(1)


@alerts_app.command()
def tail(
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of the API. Left out: that of the running `ringfence up`."),
    ] = None,
    data_dir: DataDir = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line instead of a table.")
    ] = False,
) -> None:
    """Follow alerts live in the terminal: arrows or digits choose one, `a` acknowledges it, `q` ends."""
    from telemetry.alerts.tail import tail as follow  # noqa: PLC0415

    client = _api(url, data_dir)
    follow(str(client.base_url), as_json=as_json, client=client)


AlertIdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The alert's id, or its last digits as `alerts tail` shows them.")
]
ApiUrl = Annotated[str | None, typer.Option("--url", metavar="URL", help="Address of the API.")]
NoteOption = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="For the alert's log.")]


@alerts_app.command()
def acknowledge(
    alert_id: AlertIdArgument, note: NoteOption = None, url: ApiUrl = None, data_dir: DataDir = None
) -> None:
    """Take an alert up. RINGFENCE_TOKEN says who you are."""
    _step(url, data_dir, alert_id, "acknowledge", {"note": note})


@alerts_app.command()
def resolve(
    alert_id: AlertIdArgument,
    outcome: Annotated[
        str, typer.Option("--outcome", metavar="OUTCOME", help="real, false, excused or equipment.")
    ],
    note: NoteOption = None,
    url: ApiUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Say how an alert ended. RINGFENCE_TOKEN says who you are."""
    _step(url, data_dir, alert_id, "resolve", {"note": note, "outcome": outcome})


def _step(url: str | None, data_dir: Path | None, alert_id: str, action: str, body: dict[str, Any]) -> None:
    from telemetry.alerts.board import printable  # noqa: PLC0415
    from telemetry.alerts.by_id import take_step  # noqa: PLC0415

    with _api(url, data_dir) as client:
        alert = take_step(client, alert_id, action, body)
    step = alert["log"][-1]
    line = f"{alert['alert_id']} {alert['device_id']} {alert['rule_id']}: {step['change']} by {step['who']}"
    out.print(printable(line), highlight=False, markup=False)


def _api(url: str | None, data_dir: Path | None) -> httpx.Client:
    """A client of the API of the running `ringfence up`, or of that at ``url``, with our token."""
    from telemetry.alerts.by_id import api_client  # noqa: PLC0415
    from telemetry.services.state import read_state  # noqa: PLC0415

    settings = load_settings(data_dir=data_dir)
    running = read_state(settings.data_dir)
    address = url or (running.http_url if running else f"{settings.http_scheme}://{settings.http}")
    token = None if settings.token is None else settings.token.get_secret_value()
    return api_client(address, token, settings.http_ca)


def _is_users_error(error: Exception) -> bool:
    """Whether the message of this error says the remedy, so that a traceback would only be in the way.

    The bases are looked up among the loaded modules: an error of one that is not loaded can't have come.
    """
    bases = (
        ("telemetry.config", "SettingsError"),
        ("telemetry.access.errors", "AccessError"),
        ("telemetry.check", "PingFileError"),
        ("telemetry.replay", "ReplayError"),
        ("telemetry.alerts.stream", "TailError"),
        ("telemetry.mqtt.session", "MqttError"),
        ("telemetry.services.errors", "ServiceError"),
        ("telemetry.store", "StoreError"),
        ("geofence.errors", "GeofenceError"),
        ("firmware_sim.errors", "SimulatorError"),
    )
    loaded = ((sys.modules.get(module), name) for module, name in bases)
    return isinstance(error, tuple(getattr(module, name) for module, name in loaded if module is not None))


def _say(line: str) -> None:
    err.print(line, highlight=False, markup=False, soft_wrap=True)


def _log_to_stderr(level: str, layout: str = "console") -> None:
    from telemetry.logs import LEVELS, set_up  # noqa: PLC0415

    if level.lower() not in LEVELS:
        raise SettingsError(f"--log-level {level}: there are debug, info, warning and error")
    set_up(level, layout, err)


def _print_table(name: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    table = Table(title=f"{len(rows)} {name}", title_justify="left", box=None, header_style="bold")
    for column in columns:
        table.add_column(column.removesuffix("_id").removesuffix("_at"), no_wrap=column.endswith("_at"))
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    out.print(table)


if __name__ == "__main__":
    main()
