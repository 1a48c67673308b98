"""Acknowledging and resolving alerts from a terminal, over the API, by their id or its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from telemetry.alerts.board import SHOWN_DIGITS
from telemetry.alerts.stream import LIVE_STATES, TIMEOUT, TailError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["api_client", "take_step"]


def api_client(http_url: str, token: str | None, ca_file: Path | None) -> httpx.Client:
    """A client of the API that shows this token; it follows no redirect, which would take the token along."""
    try:
        return httpx.Client(
            base_url=http_url.rstrip("/"),
            timeout=TIMEOUT,
            trust_env=False,
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            verify=True if ca_file is None else str(ca_file),
        )
    except (OSError, httpx.InvalidURL, UnicodeEncodeError) as error:
        raise TailError(
            f"{http_url} can't be asked ({error}); correct --url, RINGFENCE_TOKEN or RINGFENCE_HTTP_CA"
        ) from error


def take_step(client: httpx.Client, alert_id: str, action: str, body: dict[str, Any]) -> dict[str, Any]:
    """``acknowledge``, ``resolve`` or ``reopen`` an alert; gives it as it is then.

    alert_id : the id, or its last digits where they fit one alert to do alone
    Raises TailError with what the API says.
    """
    whole = alert_id if len(alert_id) > SHOWN_DIGITS + 2 else _find(client, alert_id)
    return _ask(client, "POST", f"/api/v1/alerts/{whole}/{action}", json=body)


def _find(client: httpx.Client, ending: str) -> str:
    if not (ending.isascii() and ending.isdigit()):
        raise TailError(f"{ending!r} is no id of an alert; `ringfence alerts tail` shows them")
    found = _ask(client, "GET", "/api/v1/alerts", params={"state": LIVE_STATES, "limit": 1000})["items"]
    fitting = [str(alert["alert_id"]) for alert in found if alert["alert_id"].endswith(ending)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        return ending  # one that is done, or unknown: the API says which
    raise TailError(f"{len(fitting)} alerts end with {ending}; give more digits: {', '.join(fitting[:5])}")


def _ask(client: httpx.Client, method: str, path: str, **options: Any) -> dict[str, Any]:
    try:
        answer = client.request(method, path, **options)
    except httpx.HTTPError as error:
        raise TailError(
            f"nothing answers at {client.base_url} ({error or type(error).__name__}); start `ringfence up`, "
            "or name its address with --url"
        ) from error
    if answer.status_code != 200:
        raise TailError(refusal(answer))
    return dict(msgspec.json.decode(answer.content))


def refusal(answer: httpx.Response) -> str:
    """What the API says of a request that it refuses."""
    try:
        problem = answer.json()
        return f"{problem['detail']}; {problem['remedy']}"
    except (ValueError, KeyError, TypeError):
        return f"what answers at {answer.url.host} is no Ringfence (status {answer.status_code})"
