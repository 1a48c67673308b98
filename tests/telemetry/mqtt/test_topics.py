"""Topics: what is ours, which device it names, and slots that never change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofence import Devices
from telemetry.mqtt.patterns import Pattern
from telemetry.mqtt.topics import (
    CHECKINS,
    OVERSIZE,
    OWNTRACKS,
    PINGS,
    RESULTS,
    STATUS,
    TELTONIKA,
    TRACCAR,
    UNKNOWN,
    Topics,
    alert_topic,
    device_topic,
    is_device_id,
    lane_of,
    subscriptions,
)

KINDS = {"pings": PINGS, "status": STATUS, "results": RESULTS, "checkins": CHECKINS}
device_ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


@given(
    root=st.sampled_from(["ringfence/v1", "x", "a/b/c"]),
    device_id=device_ids,
    leaf=st.sampled_from(sorted(KINDS)),
)
def test_a_topic_that_we_build_is_one_that_we_know(root, device_id, leaf):
    topics = Topics(root)
    name = device_topic(root, device_id, leaf)
    slot = topics.slot(name)
    assert (topics.kind[slot], topics.device_id(slot)) == (KINDS[leaf], device_id)
    assert topics.slot(name.encode()) == slot
    assert topics.names == [name]
    assert name.split("/")[-3] == lane_of(device_id)


def test_the_lane_is_the_one_that_devices_were_provisioned_with():
    assert lane_of("a17") == "8d"  # BLAKE2b with one byte of output
    assert alert_topic("r", "high", "a17", "12") == "r/alerts/high/a17/12"


@pytest.mark.parametrize(
    "name",
    [
        "ringfence/v1/8d/a17/commands",
        "ringfence/v1/8d/a17",
        "ringfence/v1/8d/a17/pings/more",
        "ringfence/v1/8D/a17/pings",
        "ringfence/v1/8/a17/pings",
        "ringfence/v1/8d//pings",
        "ringfence/v1/8d/" + "a" * 65 + "/pings",
        "ringfence/v1/8d/ä/pings",
        "ringfence/v1/8d/a17\n/pings",
        "ringfence/v2/8d/a17/pings",
        "xringfence/v1/8d/a17/pings",
        "owntracks/ada",
        "owntracks/ada/phone/event",
        "owntracks//phone",
        "owntracks/a b/phone",
        "owntracks/" + "a" * 40 + "/" + "b" * 24,
        "",
        "/",
    ],
)
def test_what_is_not_ours_names_no_device(name):
    topics = Topics()
    slot = topics.slot(name)
    assert (topics.kind[slot], topics.device_id(slot)) == (UNKNOWN, None)


def test_bytes_that_are_no_text_get_a_slot_too():
    topics = Topics()
    slot = topics.slot(b"ringfence/v1/8d/\xff/pings")
    assert topics.kind[slot] == UNKNOWN
    assert topics.slot(b"ringfence/v1/8d/\xff/pings") == slot
    assert topics.names[slot] == r"ringfence/v1/8d/\xff/pings"


def test_owntracks_names_user_and_device():
    topics = Topics()
    slot = topics.slot("owntracks/ada/phone")
    assert (topics.kind[slot], topics.device_id(slot)) == (OWNTRACKS, "ada-phone")


def test_slots_stay_as_the_table_grows():
    topics = Topics()
    names = [device_topic("ringfence/v1", f"d{i}", "pings") for i in range(1000)]
    slots = [topics.slot(name) for name in names]
    oversize = topics.oversize_slot(slots[3])
    assert [topics.slot(name) for name in names] == slots
    assert topics.oversize_slot(slots[3]) == oversize
    assert (topics.kind[oversize], topics.names[oversize], topics.device_id(oversize)) == (
        OVERSIZE,
        names[3],
        "d3",
    )
    devices = Devices(["other"])
    assert topics.device_slots(np.array([slots[5], slots[2], slots[5]], np.int32), devices).tolist() == [
        1,
        2,
        1,
    ]
    assert devices.ids == ["other", "d5", "d2"]


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("a", True),
        ("A-z_09", True),
        ("", False),
        ("a" * 65, False),
        ("a/b", False),
        ("a\n", False),
        ("é", False),
    ],
)
def test_device_ids(text, ok):
    assert is_device_id(text) is ok


def test_the_settings_say_under_which_topics_a_format_comes():
    formats = {"fleet/{imei}/data": "teltonika", "{site}/traccar/{unit}": "traccar", "fleet/{x}/{y}": "pings"}
    topics = Topics("root", formats)
    found = {}
    for name in (
        "fleet/350424/data",
        "north/traccar/7",
        "fleet/a/b",
        "fleet//data",
        "fleet/a b/data",
        "owntracks/ada/phone",
    ):
        slot = topics.slot(name)
        found[name] = (int(topics.kind[slot]), topics.device_id(slot))
    assert found == {
        "fleet/350424/data": (TELTONIKA, "350424"),
        "north/traccar/7": (TRACCAR, "north-7"),
        "fleet/a/b": (PINGS, "a-b"),
        "fleet//data": (UNKNOWN, None),
        "fleet/a b/data": (UNKNOWN, None),
        "owntracks/ada/phone": (UNKNOWN, None),
    }
    assert subscriptions("root", formats)[4:] == ["fleet/+/data", "+/traccar/+", "fleet/+/+"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fleet/data", "must name the device"),
        ("{a}/{a}", "must name the device"),
        ("fleet/+/data", r"the level '\+'"),
        ("fleet/#", "the level '#'"),
        ("fleet//{device}", "the level ''"),
        ("fleet/x{device}", r"the level 'x\{device\}'"),
    ],
)
def test_a_pattern_that_is_none_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        Pattern.of(text)
