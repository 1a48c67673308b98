"""Which addresses a webhook may go to."""

from __future__ import annotations

import ipaddress

import pytest

from telemetry.channels.addresses import objection


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.7",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:7",
        "2002:7f00:1::1",
        "2002:a00:7::1",
    ],
)
def test_addresses_of_this_side_are_refused(text):
    assert objection(ipaddress.ip_address(text), []) is not None
    everything = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
    assert objection(ipaddress.ip_address(text), everything) is None


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are_not(text):
    assert objection(ipaddress.ip_address(text), []) is None


def test_what_is_allowed_is_allowed_in_every_guise():
    allowed = [ipaddress.ip_network("10.0.0.0/24")]
    assert objection(ipaddress.ip_address("::ffff:10.0.0.7"), allowed) is None
    assert objection(ipaddress.ip_address("10.0.1.7"), allowed) is not None
