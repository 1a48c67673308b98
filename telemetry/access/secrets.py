"""Passwords, tokens and cookies: made, hashed, compared.

Passwords and tokens are kept as argon2id hashes. A password gets the parameters of RFC 9106 for little memory
(64 MiB, 3 passes); a token has 256 random bits, which nobody guesses, so its hash may be quick.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from telemetry.access.errors import AccessError

__all__ = [
    "check_password",
    "cookie_hash",
    "hash_password",
    "hash_token_secret",
    "new_cookie",
    "new_token",
    "read_token",
    "verify_secret",
]

SHORTEST_PASSWORD: Final = 12
LONGEST_PASSWORD: Final = 256
TOKEN_PREFIX: Final = "rf"  # noqa: S105 - so that scanners for leaked secrets can know one

_PASSWORDS: Final = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1)
_TOKENS: Final = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1)
# What is compared with when no account has the name, so that the answer takes as long.
NOBODY_HASH: Final = _PASSWORDS.hash(secrets.token_urlsafe(32))


def check_password(name: str, password: str) -> None:
    """Refuse a password that is easily guessed. Raises AccessError."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise AccessError(
            f"the password has {len(password)} characters; give {SHORTEST_PASSWORD} to {LONGEST_PASSWORD}, "
            "four random words for instance"
        )
    if name.lower() in password.lower() or len(set(password)) < 5:
        raise AccessError(
            "the password holds the account's name or hardly differing characters; give another"
        )


def hash_password(password: str) -> str:
    """An argon2id hash with its salt and parameters."""
    return _PASSWORDS.hash(password)


def hash_token_secret(secret: str) -> str:
    """The same, of a token's secret part."""
    return _TOKENS.hash(secret)


def verify_secret(stored: str, given: str) -> bool:
    """Whether ``given`` is what was hashed. Takes as long for either answer."""
    try:
        return _PASSWORDS.verify(stored, given)
    except (VerificationError, InvalidHashError):
        return False


def new_token() -> tuple[str, str, str]:
    """A token's public id, its secret, and the text that its user gets: ``rf_<id>_<secret>_<checksum>``."""
    token_id, secret = secrets.token_hex(6), secrets.token_hex(32)
    body = f"{TOKEN_PREFIX}_{token_id}_{secret}"
    return token_id, secret, f"{body}_{zlib.crc32(body.encode()):08x}"


def read_token(text: str) -> tuple[str, str] | None:
    """Id and secret of a token's text; None where it is none: that is told without asking the database.

    >>> read_token("rf_0123_abcd_00000000") is None
    True
    """
    body, _, checksum = text.rpartition("_")
    prefix, _, rest = body.partition("_")
    token_id, _, secret = rest.partition("_")
    if prefix != TOKEN_PREFIX or not secret or not text.isascii():
        return None
    return (token_id, secret) if checksum == f"{zlib.crc32(body.encode()):08x}" else None


def new_cookie() -> str:
    """A session's cookie: 256 random bits."""
    return secrets.token_urlsafe(32)


def cookie_hash(cookie: str) -> bytes:
    """What is stored of it. A quick hash is enough: there is nothing to guess."""
    return hashlib.sha256(cookie.encode()).digest()
