"""The OpenAPI document is well formed and true to what is answered; no request makes a server error."""

from __future__ import annotations

import json
from urllib.parse import quote

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def document(api):
    return api.get("/api/v1/openapi.json").json()


def schema_of(document, schema):
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "components": document["components"],
        **schema,
    }


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_it_is_openapi_3_1_with_sound_schemas(document):
    assert document["openapi"].startswith("3.1.")
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere(document):
    text = json.dumps(document)
    names = {piece.split('"', 1)[0] for piece in text.split('"$ref": "#/components/schemas/')[1:]}
    assert names
    assert names <= set(document["components"]["schemas"])


def test_operations_have_unique_names_summaries_and_only_problem_errors(document):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names) > 12
    for path, _, operation in operations(document):
        assert operation["summary"], path
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (path, status)


def test_no_parameter_can_be_null(document):
    for path, _, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert '"null"' not in json.dumps(parameter), (path, parameter["name"])


def test_answers_are_what_the_document_says(api, document, filled):
    filled_in = {"device_id": "a1", "alert_id": str(filled.alert_ids[0]), "version": 1}
    checked = 0
    for path, method, operation in operations(document):
        content = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
        if method != "get" or "schema" not in content or path.endswith("/stream"):
            continue
        answer = api.get(path.format(**filled_in))
        jsonschema.validate(answer.json(), schema_of(document, content["schema"]))
        checked += 1
    assert checked >= 8


def test_problems_are_what_the_document_says(api, document):
    schema = schema_of(document, {"$ref": "#/components/schemas/Problem"})
    for path in ("/api/v1/alerts?limit=0&cursor=", "/api/v1/devices/nobody", "/nothing"):
        jsonschema.validate(api.get(path).json(), schema)


def test_examples_keep_to_their_schemas(document):
    examples = 0
    for schema in document["components"]["schemas"].values():
        for example in schema.get("examples", []):
            jsonschema.validate(example, schema_of(document, schema))
            examples += 1
    assert examples >= 3


ANY_TEXT = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            "",
            "0",
            "-1",
            "a1",
            "null",
            "9" * 40,
            "2026-11-24T08:00:00Z",
            "1e9",
            "%",
            "\0",
            "WyJhbGVydHMiLDEsMl0",
        ]
    ),
    st.integers().map(str),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
)
PARAMETERS = (
    "from",
    "to",
    "device",
    "zone",
    "rule",
    "kind",
    "severity",
    "state",
    "cursor",
    "limit",
    "format",
    "x",
)
PATHS = (
    "devices",
    "devices/{}",
    "devices/{}/track",
    "transitions",
    "violations",
    "alerts",
    "alerts/{}",
    "zones",
    "rules",
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    part=ANY_TEXT,
    query=st.lists(st.tuples(st.sampled_from(PARAMETERS), ANY_TEXT), max_size=4),
)
def test_no_request_makes_an_error_of_the_server(api, path, part, query):
    where = "/api/v1/" + path.format(quote(part, safe=""))
    answer = api.get(where, params=[(name, value.encode("utf-8", "surrogatepass")) for name, value in query])
    assert answer.status_code < 500
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | ANY_TEXT,
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["who", "note", "outcome", "x"]), inner)
        ),
        max_leaves=5,
    )
)
def test_no_body_makes_an_error_of_the_server(api, body):
    answer = api.post("/api/v1/alerts/17/resolve", json=body)
    assert answer.status_code in {404, 422}
