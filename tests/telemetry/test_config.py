"""Settings: which source wins, and that an error names the source, the value and the remedy."""

import json
from pathlib import Path

import pytest

from telemetry.config import Settings, SettingsError, default_data_dir, load_settings


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in [*Settings.model_fields, "config"]:
        monkeypatch.delenv(f"RINGFENCE_{name.upper()}", raising=False)


def test_flags_win_over_environment_and_environment_over_file(tmp_path, monkeypatch):
    file = tmp_path / "ringfence.toml"
    file.write_text('share = 1\nsimulate = 1\nmqtt_url = "mqtt://file"\n')
    monkeypatch.setenv("RINGFENCE_SIMULATE", "2")
    monkeypatch.setenv("RINGFENCE_MQTT_URL", "mqtt://environment")
    settings = load_settings(file, mqtt_url="mqtt://flag")
    assert (settings.share, settings.simulate, settings.mqtt_url) == (1, 2, "mqtt://flag")


def test_a_settings_file_can_be_named_by_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "ringfence.toml"
    file.write_text("share = 7\n")
    monkeypatch.setenv("RINGFENCE_CONFIG", str(file))
    assert load_settings().share == 7


@pytest.mark.parametrize(
    ("flags", "environment", "words"),
    [
        ({"mqtt_url": "tcp://host"}, {}, ["--mqtt-url", "mqtt://"]),
        ({"database_url": "mysql://host"}, {}, ["--database-url", "postgresql://"]),
        ({}, {"RINGFENCE_HTTP": "8750"}, ["RINGFENCE_HTTP", "HOST:PORT"]),
        ({"http_cert": "cert.pem"}, {}, ["http_cert", "http_key", "together"]),
        ({}, {"RINGFENCE_SHARE": "many"}, ["RINGFENCE_SHARE", "integer"]),
        ({"mqtt_root": "a/#"}, {}, ["--mqtt-root", "#"]),
        ({}, {"RINGFENCE_FORMATS": "fleet/data=traccar"}, ["RINGFENCE_FORMATS", "must name the device"]),
        ({}, {"RINGFENCE_FORMATS": "fleet/{x}=gpx"}, ["RINGFENCE_FORMATS", "'gpx'", "teltonika"]),
    ],
)
def test_a_wrong_setting_is_named_with_its_source_and_remedy(flags, environment, words, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(**flags)
    for word in words:
        assert word in str(caught.value)


def test_formats_are_a_table_of_the_file_or_a_text(tmp_path, monkeypatch):
    assert load_settings().formats == {"owntracks/{user}/{device}": "owntracks"}
    file = tmp_path / "ringfence.toml"
    file.write_text('[formats]\n"fleet/{imei}/data" = "teltonika"\n')
    assert load_settings(file).formats == {"fleet/{imei}/data": "teltonika"}
    monkeypatch.setenv("RINGFENCE_FORMATS", "a/{x}=traccar, b/{y}/6=lwm2m")
    assert load_settings(file).formats == {"a/{x}": "traccar", "b/{y}/6": "lwm2m"}


def test_a_file_with_an_unknown_setting_names_the_known_ones(tmp_path):
    file = tmp_path / "ringfence.toml"
    file.write_text("mqtt_ulr = 1\n")
    with pytest.raises(
        SettingsError, match=r"ringfence\.toml: no setting is called mqtt_ulr; there are mqtt_url"
    ):
        load_settings(file)


def test_a_file_that_is_no_toml_says_where(tmp_path):
    file = tmp_path / "ringfence.toml"
    file.write_text("share = \n")
    with pytest.raises(SettingsError, match="line 1"):
        load_settings(file)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(tmp_path / "none.toml")


def test_printed_settings_hold_no_password():
    settings = load_settings(
        mqtt_url="mqtt://me:secret@host",
        database_url="postgresql://u:hidden@h/d?sslmode=require&password=veiled&sslpassword=cloaked",
    )
    printed = str(settings.redacted())
    assert "secret" not in printed
    assert not any(word in printed for word in ("hidden", "veiled", "cloaked"))
    assert "sslmode=require" in printed
    assert "mqtt://me:***@host" in printed


def test_the_data_directory_does_not_need_a_home(monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", _no_home)
    assert default_data_dir().is_absolute()


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


CHANNELS = """
[[webhooks]]
name = "pager"
url = "https://hooks.example/T000/very-secret-path"
secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]

[email]
host = "mail.example"
user = "ringfence"
password = "correct horse"
sender = "ringfence@agency.example"
to = ["desk@agency.example"]
"""


def test_channels_come_from_the_file_and_are_printed_without_secrets(tmp_path):
    file = tmp_path / "ringfence.toml"
    file.write_text(CHANNELS)
    settings = load_settings(file)
    assert settings.webhooks[0].name == "pager"
    assert settings.email.port == 587
    for printed in (json.dumps(settings.redacted()), repr(settings), str(settings.email)):
        for secret in ("whsec_", "AAECAwQF", "correct horse"):
            assert secret not in printed
    assert "very-secret-path" not in json.dumps(settings.redacted())
    assert settings.redacted()["webhooks"][0]["url"] == "https://hooks.example/***"


def test_secrets_may_stand_in_files_of_their_own(tmp_path):
    (tmp_path / "hook").write_text("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    file = tmp_path / "ringfence.toml"
    text = CHANNELS.replace(
        'secrets = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]', "secret_file = '{}'"
    )
    file.write_text(text.format(tmp_path / "hook"))
    secret = load_settings(file).webhooks[0].secrets[0].get_secret_value()
    assert secret.startswith("whsec_AAEC")
    assert not secret.endswith("\n")
    file.write_text(text.format(tmp_path / "absent"))
    with pytest.raises(SettingsError, match=r"webhooks\[0\]: .*absent can't be read"):
        load_settings(file)


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        ("https://hooks", "ftp://hooks", r"webhooks\[0\].url: write it as https://host/path"),
        ("https://hooks", "http://hooks", r"webhooks\[0\]: http:// can be read by anybody"),
        ("https://hooks", "https://me:pw@hooks", r"webhooks\[0\].url: it holds a user or password"),
        ('"whsec_AAEC', '"whsec_AA!C', r"webhooks\[0\].secrets: a secret holds 0 bytes"),
        (
            "secrets =",
            "secret =",
            r"webhooks\[0\].secret: there is no such key|webhooks\[0\]: there is no secret",
        ),
        ('"pager"', '"pa ger"', r"webhooks\[0\].name: "),
        ('"desk@', '"desk', r"email.to\[0\]: "),
        ("host =", "# host =", r"email.host: it is missing"),
        ('user = "ringfence"\n', "", r"email: `user` and `password`.*go together"),
        (
            'user = "ringfence"\n',
            'user = "ringfence"\nsecurity = "none"\n',
            r"email: a password must not travel",
        ),
        (
            "\n[email]",
            '\n[[webhooks]]\nname = "pager"\nurl = "https://b"\nsecret_file = "{key}"\n[email]',
            "two webhooks",
        ),
    ],
)
def test_what_is_wrong_with_a_channel_is_told_without_its_secret(tmp_path, good, bad, told):
    assert good in CHANNELS
    key = tmp_path / "key"
    key.write_text("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    file = tmp_path / "ringfence.toml"
    file.write_text(CHANNELS.replace(good, bad, 1).replace("{key}", str(key)))
    with pytest.raises(SettingsError, match=told) as caught:
        load_settings(file)
    for secret in ("AAECAwQF", "AA!C", "correct horse", "me:pw"):
        assert secret not in str(caught.value)
