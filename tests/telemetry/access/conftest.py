"""A town with two caseloads, and the API over it as somebody has to log in to."""

from __future__ import annotations

import contextlib
import copy

import httpx
import pytest

from telemetry.access.secrets import hash_password, hash_token_secret, new_token
from telemetry.columns import DeviceStatus
from telemetry.store.keys import KeyRing
from tests.telemetry.api import town as towns
from tests.telemetry.api.town import START_US, Town, fresh_database, serving

PASSWORD = "four random words here"
ROSTER = [
    {"id": "a1", "kind": "ankle", "participant": "p-north", "groups": ["north"]},
    {"id": "a2", "kind": "wrist", "participant": "p-south", "groups": ["south"]},
]


@contextlib.contextmanager
def roster_town(url):
    """A town whose device a1 is in the north, a2 in the south, and b-1 in no caseload."""
    document = copy.deepcopy(towns.DOCUMENT)
    document["rules"]["devices"] = ROSTER
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(towns, "DOCUMENT", document)
        town = Town(url)
    for device_id in ("a1", "a2", "b-1"):
        status = [DeviceStatus(device_id, True, START_US)]
        town.commit(town.walk(device_id, 5), statuses=status)
        town.commit(transitions=[town.transition(device_id, "school-1", 1, START_US)])
        town.raise_alert(device_id)
    yield town
    town.close()


@pytest.fixture(scope="package")
def caseloads(postgres_url):
    """Such a town, for all tests."""
    with fresh_database(postgres_url) as url, roster_town(url) as town:
        yield town


@pytest.fixture(scope="package")
def keys(caseloads):
    """Tokens by name: one for each role in the north, ``all`` for everyone; and an account m.ito."""
    with contextlib.closing(KeyRing.open(caseloads.url, by="tests")) as ring:
        ring.add_account("m.ito", "operator", ["north"], hash_password(PASSWORD))
        made = {}
        for name, role, groups in (
            ("read_only", "read_only", ["north"]),
            ("operator", "operator", ["north"]),
            ("supervisor", "supervisor", ["north"]),
            ("engineer", "engineer", ["north"]),
            ("all", "supervisor", None),
            ("chief", "engineer", None),
        ):
            token_id, secret, text = new_token()
            ring.add_token(
                token_id,
                name,
                role=role,
                groups=groups,
                secret_hash=hash_token_secret(secret),
                expires_us=None,
            )
            made[name] = text
    return made


@contextlib.contextmanager
def guarded(url, *, loopback=False, **options):
    """The API as it runs off loopback: nobody is let in unknown."""
    with (
        serving(url, loopback=loopback, **options) as address,
        httpx.Client(base_url=address, timeout=20) as client,
    ):
        yield client


@pytest.fixture(scope="package")
def door_api(caseloads, keys):
    """A client that shows nothing."""
    with guarded(caseloads.url) as client:
        yield client


@pytest.fixture
def as_(keys):
    """The headers of a token, by its name."""
    return lambda name: {"Authorization": f"Bearer {keys[name]}"}


@pytest.fixture(scope="session")
def problem():
    """Checks that an answer is a problem document of this status, and gives it."""

    def check(response, status):
        assert response.status_code == status, response.text[:300]
        assert response.headers["content-type"] == "application/problem+json"
        document = response.json()
        assert document["status"] == status
        assert document["remedy"]
        return document

    return check
