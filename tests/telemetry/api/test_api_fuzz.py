"""Schemathesis against the OpenAPI document: what is answered keeps to it, and nothing makes a server error.

``make fuzz-api`` asks longer: RINGFENCE_FUZZ_EXAMPLES says how many requests of each operation.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.telemetry.api.town import serving

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (`make bench` does)")

LONG = "RINGFENCE_FUZZ_EXAMPLES"
STREAMS = ("/stream",)  # an answer that does not end


def test_every_answer_is_what_the_document_says(town):
    town.commit(town.walk("a1", 3))
    town.raise_alert("a1")
    asked: dict[str, int] = {}
    with serving(town.url, zones_read_only=False) as url:
        schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json")
        for result in schema.get_all_operations():
            operation = result.ok()
            if not operation.path.endswith(STREAMS):
                asked[operation.label] = ask(operation)
    assert len(asked) > 40
    assert all(asked.values()), asked


def ask(operation: Any) -> int:
    """Ask one operation in many ways; how often."""
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    asked = 0

    @settings(
        max_examples=int(os.environ.get(LONG, "4")),
        deadline=None,
        derandomize=LONG not in os.environ,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def each(case: Any) -> None:
        nonlocal asked
        asked += 1
        case.call_and_validate(
            checks=[
                not_a_server_error,
                checks.status_code_conformance,
                checks.content_type_conformance,
                checks.response_schema_conformance,
            ],
            timeout=30,
        )

    each()
    return asked
