"""Passwords, tokens, throttling, and when `ringfence up` may listen off loopback."""

from __future__ import annotations

import contextlib

import pytest

from telemetry.access.errors import AccessError
from telemetry.access.secrets import (
    check_password,
    hash_password,
    hash_token_secret,
    new_token,
    read_token,
    verify_secret,
)
from telemetry.access.throttle import LONGEST_WAIT_S, MOST_KEYS, Throttle
from telemetry.config import Settings, SettingsError
from telemetry.store import Store
from telemetry.store.keys import KeyRing
from telemetry.up import Up


def test_a_token_is_read_back_and_one_that_was_cut_short_is_none():
    token_id, secret, text = new_token()
    assert read_token(text) == (token_id, secret)
    assert len({new_token()[2] for _ in range(20)}) == 20
    for wrong in (
        text[:-1],
        text + "0",
        text.replace("rf_", "rx_"),
        text.swapcase(),
        "",
        "rf___",
        "_",
        "é" * 30,
    ):
        assert read_token(wrong) is None, wrong


@pytest.mark.parametrize("hashed", [hash_password, hash_token_secret])
def test_what_is_stored_is_argon2_with_a_salt_of_its_own(hashed):
    one, other = hashed("the secret"), hashed("the secret")
    assert one != other
    assert one.startswith("$argon2id$")
    assert verify_secret(one, "the secret")
    assert not verify_secret(one, "the secrex")
    assert not verify_secret("no hash", "the secret")


@pytest.mark.parametrize("password", ["short", "x" * 300, "aaaaaaaaaaaaaa", "M.ITO and more words"])
def test_a_weak_password_is_refused(password):
    with pytest.raises(AccessError, match="give"):
        check_password("m.ito", password)


def test_waits_double_end_and_are_forgotten():
    now = [0.0]
    throttle = Throttle(3, lambda: now[0])
    waits = []
    for _ in range(14):
        throttle.failed("k")
        waits.append(throttle.wait_s("k"))
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, LONGEST_WAIT_S, LONGEST_WAIT_S, LONGEST_WAIT_S]
    assert throttle.wait_s("other") == 0
    now[0] += LONGEST_WAIT_S
    assert throttle.wait_s("k") == 0
    throttle.succeeded("k")
    throttle.failed("k")
    assert throttle.wait_s("k") == 0
    for number in range(MOST_KEYS + 10):
        throttle.failed(str(number))
    assert len(throttle._failures) == MOST_KEYS


def test_off_loopback_somebody_must_be_able_to_log_in(embedded_database_url, tmp_path):
    with contextlib.closing(Store.open(embedded_database_url)) as store:
        store.migrate()
    said = []

    def look(http, **more):
        said.clear()
        Up(Settings(http=http, data_dir=tmp_path, **more), said.append)._check_door(embedded_database_url)

    look("127.0.0.1:0")
    with pytest.raises(SettingsError, match="neither account nor token; start with"):
        look("0.0.0.0:0")
    look("127.0.0.1:0", allowed_hosts="localhost, 127.0.0.1")
    with pytest.raises(SettingsError, match=r"allowed_hosts names console\.example, so a proxy"):
        look("127.0.0.1:0", allowed_hosts="localhost, console.example")
    with contextlib.closing(KeyRing.open(embedded_database_url, by="tests")) as ring:
        ring.add_account("m.ito", "operator", None, hash_password("four random words"))
        look("127.0.0.1:0", allowed_hosts="console.example")
        assert said == []
        look("0.0.0.0:0")
        assert "without TLS" in said[0]
        look("0.0.0.0:0", http_cert=tmp_path / "c", http_key=tmp_path / "k")
        assert said == []
        ring.disable_account("m.ito")
    with pytest.raises(SettingsError, match="neither account nor token"):
        look("[::]:0")
