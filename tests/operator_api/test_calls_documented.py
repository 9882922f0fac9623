"""The operators' API as its OpenAPI document says it, against a running broker."""

from __future__ import annotations

import json
import runpy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from support.vault import PAYMENT, Vault

from agentvault_tui.operator_api.calls import CALLS

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = json.loads((DOCS / "operator-api.json").read_text())
OPERATIONS = [
    (path, method)
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if path != "/api/events"  # it has no end
]


class Documented:
    """The document as Schemathesis reads it, which takes a second to import."""

    def __init__(self) -> None:
        from schemathesis import openapi  # noqa: PLC0415 - not in every worker
        from schemathesis.checks import not_a_server_error  # noqa: PLC0415
        from schemathesis.specs.openapi import checks  # noqa: PLC0415

        self.schema = openapi.from_dict(DOCUMENT)
        self.checks = [
            not_a_server_error,
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_schema_conformance,
        ]


@pytest.fixture(scope="module")
def documented() -> Documented:
    return Documented()


def test_the_document_is_made_from_the_types() -> None:
    """`make docs` would change nothing of docs/operator-api.json."""
    made = runpy.run_path(str(DOCS / "openapi.py"))["operator_api"]()
    assert made == (DOCS / "operator-api.json").read_text()


def test_every_call_is_in_the_document() -> None:
    """Under its path and method, with its status."""
    for call in CALLS:
        told = DOCUMENT["paths"][call.path.replace(":int", "")][call.method.lower()]
        assert str(call.status) in told["responses"]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_the_broker_answers_as_the_document_says(
    vault: Vault, documented: Documented, path: str, method: str
) -> None:
    """Whatever is asked as it allows: an answer of its shape, or a problem document."""
    operation = documented.schema[path][method]
    validated = []
    # Advice and plans are found in processes of their own; three meet 400 and 409.
    dear = 1 if path.startswith("/api/advice") else 3 if path.endswith("/plan") else 0

    @settings(
        max_examples=dear or 12,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        answer = vault.operator.request(
            case.method,
            case.formatted_path,
            params=case.query,
            json=case.body if case.media_type else None,
        )
        case.validate_response(answer, checks=documented.checks)
        validated.append(answer.status_code)

    ask()
    assert validated


@pytest.mark.slow
def test_what_there_is_is_shown_as_the_document_says(
    vault: Vault, documented: Documented
) -> None:
    """An agent with a token, a step-up that is approved, events, and the past."""
    show = partial(shown_as_documented, vault, documented)
    vault.operator.post("/api/agents/restore", json={"all": True})
    template = {"name": "kind", "owner": "ops", "scopes": ["read:email"]}
    vault.operator.post("/api/agents", json={**template, "template": True})
    payer = vault.register("payer", "send:payment", "read:email")
    assert payer.token("read:email").status_code == 200
    stepup = {"id": payer.token("send:payment", PAYMENT).json()["auth_req_id"]}
    agent = {"id": payer.agent_id}
    shown = show("GET", "/api/agents/stepup/{id}", stepup)
    approval = {**stepup, "decision": "approve", "digest": shown["digest"]}
    begun = show("POST", "/api/agents/stepup", body=approval)
    assert begun["device"]["user_code"]
    assert show("GET", "/api/agents/{id}", agent)["tokens"]
    listed = show("GET", "/api/agents")["agents"]
    assert listed
    assert not [one for one in listed if "tokens" in one]  # as `tokens` defaults
    every = show("GET", "/api/agents", query={"tokens": "true"})["agents"]
    assert [one["tokens"] for one in every if one["id"] == payer.agent_id] != [[]]
    assert show("GET", "/api/files")["agents"].keys() >= {"kind", "payer"}
    assert show("GET", "/api/agents/{id}/activity", agent)["scopes"]
    show("GET", "/api/agents/stepup/{id}/before", stepup)
    head = show("GET", "/api/status")["ledger"]["head"]
    assert show("GET", "/api/audit/{seq}", {"seq": head})["event"]
    assert show("GET", "/api/audit/{seq}/story", {"seq": head})["events"]
    assert show("GET", "/api/audit/links", query={"seq": "1,2"})["links"]
    assert show("GET", "/api/past", query={"seq": head})["agents"]
    then = {"seq": head, "agent": payer.agent_id}
    assert show("GET", "/api/past/activity", query=then)["scopes"]
    cut = {"agent_id": payer.agent_id, "reason": "over"}
    assert show("POST", "/api/agents/revoke", body=cut)["tokens_revoked"] == 1
    assert show("GET", "/api/agents/{id}/activity", agent)["revoked"]


def shown_as_documented(
    vault: Vault,
    documented: Documented,
    method: str,
    path: str,
    place: dict[str, Any] | None = None,
    *,
    query: dict[str, Any] | None = None,
    body: Any = None,
) -> Any:
    """Ask for something that is there; check the answer against the document."""
    case = documented.schema[path][method].Case(
        path_parameters=place or {}, query=query or {}
    )
    url = path.format_map(place or {})
    answer = vault.operator.request(method, url, params=query, json=body)
    assert answer.is_success, answer.text
    case.validate_response(answer, checks=documented.checks)
    return answer.json()
