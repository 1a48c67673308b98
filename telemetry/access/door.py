"""The door of the API: from a request's headers to who sent it.

Programs show a token (``Authorization: Bearer``), browsers the cookie of a session. While the API listens on
loopback and there is neither account nor token, whoever asks is the local user.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Final

from telemetry.access.looks import Look
from telemetry.access.secrets import NOBODY_HASH, cookie_hash, new_cookie, read_token, verify_secret
from telemetry.access.throttle import Throttle
from telemetry.access.who import LOCAL_USER, Role, Who

if TYPE_CHECKING:
    from telemetry.store.gate import Gate, StoredKey

__all__ = ["Door", "NotLetIn"]

OPEN_LOOK_S: Final = 2.0  # for how long "there is no account" is believed
TOKEN_KEPT_S: Final = 5.0  # for how long a token that was just verified is not looked up again
TOKENS_KEPT: Final = 1_000
ARGON_AT_ONCE: Final = 2  # each takes 64 MiB and a core
FREE_OF_ADDRESS: Final = 10
FREE_OF_PAIR: Final = 5  # failures of an address with an account
FREE_OF_ACCOUNT: Final = 50  # from many addresses; high, so that strangers can't lock somebody out at ease


class NotLetIn(Exception):  # noqa: N818
    """Nobody is known by what was shown.

    kind    : a word for programs
    wait_s  : when another try makes sense; 0: that is no matter of time
    """

    def __init__(self, kind: str, detail: str, remedy: str, wait_s: float = 0.0) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.remedy, self.wait_s = kind, detail, remedy, wait_s


@dataclass(frozen=True, slots=True)
class _Verified:
    """A token that argon2 has verified. stored: the hash that it was verified against."""

    who: Who
    stored: str
    looked_s: float


class Door:
    """Lets in, and writes down who logged in.

    gate       : accounts, tokens and sessions
    loopback   : the API can only be reached from this machine
    session_s  : how long a log-in lasts
    """

    def __init__(self, gate: Gate, *, loopback: bool = True, session_s: float = 12 * 3600.0) -> None:
        self._gate = gate
        self.loopback = loopback
        self.session_s = session_s
        self._locked = False
        self._open_until_s = 0.0
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._argon = asyncio.Semaphore(ARGON_AT_ONCE)
        self._by_address = Throttle(FREE_OF_ADDRESS)
        self._by_pair = Throttle(FREE_OF_PAIR)
        self._by_account = Throttle(FREE_OF_ACCOUNT)

    async def is_open(self) -> bool:
        """Whether nobody has to log in. Once somebody can, everybody has to, until the next start."""
        if not self.loopback or self._locked:
            return False
        if time.monotonic() < self._open_until_s:
            return True
        self._locked = await self._gate.any_key()
        self._open_until_s = time.monotonic() + OPEN_LOOK_S
        return not self._locked

    async def who(self, authorization: str | None, cookies: str | None, address: str) -> Who:
        """Whoever shows these headers. Raises NotLetIn."""
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise NotLetIn(
                    "log-in-needed",
                    "the Authorization header names another scheme than Bearer",
                    "send `Authorization: Bearer` and a token; `ringfence token add` makes one",
                )
            return await self._who_has_token(token.strip(), address)
        cookie = self.cookie_in(cookies)
        if cookie is not None:
            key = await self._gate.session(cookie_hash(cookie))
            if key is not None:
                return _who(key, "session")
        if await self.is_open():
            return LOCAL_USER
        raise NotLetIn(
            "log-in-needed",
            "the session is over" if cookie is not None else "nobody is logged in",
            "log in with POST /api/v1/session, or send `Authorization: Bearer` and a token",
        )

    async def log_in(self, name: str, password: str, address: str) -> tuple[Who, str]:
        """Whoever has this name and password, and the cookie of a new session. Raises NotLetIn.

        Takes as long, and says the same, whether or not there is such an account.
        """
        pair = f"{address} {name}"
        tries = ((self._by_address, address), (self._by_pair, pair), (self._by_account, name))
        self._wait_if_throttled(max(throttle.wait_s(key) for throttle, key in tries))
        for throttle, key in tries:
            throttle.failed(key)  # before it is judged: tries side by side count too
        account = await self._gate.account(name)
        right = await self._verify(NOBODY_HASH if account is None else account.secret_hash, password)
        if account is None or not right:
            await self._gate.note(
                Look(who=name[:100], role="", how="session", what="log_in_refused", detail=f"from {address}")
            )
            raise NotLetIn(
                "wrong-log-in",
                "name or password is wrong",
                "check both; an administrator can set a password with `ringfence user password`",
            )
        for throttle, key in tries:
            throttle.succeeded(key)
        who = _who(account, "session")
        cookie = new_cookie()
        look = Look(who=who.name, role=who.role.value, how="session", what="log_in", detail=f"from {address}")
        await self._gate.begin_session(cookie_hash(cookie), who.name, self.session_s, look)
        return who, cookie

    async def log_out(self, who: Who, cookies: str | None) -> None:
        """End the session of this cookie."""
        cookie = self.cookie_in(cookies)
        if cookie is not None and who.how == "session":
            look = Look(who=who.name, role=who.role.value, how=who.how, what="log_out")
            await self._gate.end_session(cookie_hash(cookie), look)

    @staticmethod
    def cookie_name(*, secure: bool) -> str:
        """``__Host-``: a browser takes such a cookie over TLS alone, from this host alone."""
        return "__Host-ringfence-session" if secure else "ringfence-session"

    @classmethod
    def cookie_in(cls, cookies: str | None) -> str | None:
        """The session's cookie in a Cookie header."""
        if not cookies:
            return None
        try:
            jar = SimpleCookie(cookies)
        except CookieError:
            return None
        for secure in (True, False):
            if (morsel := jar.get(cls.cookie_name(secure=secure))) is not None:
                return morsel.value
        return None

    async def _who_has_token(self, text: str, address: str) -> Who:
        parts = read_token(text)
        if parts is None:
            raise _no_such_token("it is no token of Ringfence, or was cut short")
        digest = hashlib.sha256(text.encode()).digest()
        kept = self._verified.get(digest)
        if kept is not None and time.monotonic() - kept.looked_s < TOKEN_KEPT_S:
            return kept.who
        self._wait_if_throttled(self._by_address.wait_s(address))
        token_id, secret = parts
        key = await self._gate.token(token_id)
        known = key is not None and kept is not None and kept.stored == key.secret_hash
        if not known:
            self._by_address.failed(address)
            right = await self._verify(NOBODY_HASH if key is None else key.secret_hash, secret)
            if key is None or not right:
                self._verified.pop(digest, None)
                raise _no_such_token("it is unknown, revoked, or past its time")
            self._by_address.succeeded(address)
        assert key is not None
        who = _who(key, "token")
        self._verified[digest] = _Verified(who, key.secret_hash, time.monotonic())
        self._verified.move_to_end(digest)
        while len(self._verified) > TOKENS_KEPT:
            self._verified.popitem(last=False)
        return who

    async def _verify(self, stored: str, given: str) -> bool:
        async with self._argon:
            return await asyncio.to_thread(verify_secret, stored, given)

    @staticmethod
    def _wait_if_throttled(wait_s: float) -> None:
        if wait_s > 0:
            raise NotLetIn(
                "too-many-tries",
                "there were too many failed tries",
                f"try again in {wait_s:.0f} s",
                wait_s,
            )


def _who(key: StoredKey, how: str) -> Who:
    groups = None if key.groups is None else frozenset(key.groups)
    return Who(key.name, Role(key.role), groups, how)


def _no_such_token(why: str) -> NotLetIn:
    return NotLetIn(
        "wrong-token",
        f"the token is not taken: {why}",
        "ask for a new one; `ringfence token list` shows those that are valid",
    )
