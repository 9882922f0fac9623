"""Service files made of OpenAPI documents: every operation a route, reads apart."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.errors import UsageError
from agentvault_tui.gateway import Service
from agentvault_tui.gateway.openapi import guess_scope, service_file
from agentvault_tui.gateway.services import parse_service
from agentvault_tui.policy import shipped_catalogue

DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Shop\n[[routes]]", "version": "2"},
    "servers": [
        {
            "url": "https://{region}.shop.test/v2/",
            "variables": {"region": {"default": "eu"}},
        }
    ],
    "components": {
        "securitySchemes": {
            "mtls": {"type": "mutualTLS"},
            "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
        },
        "schemas": {
            "Money": {"properties": {"amount": {}, "currency": {}, "to": {}}},
            "Loop": {"$ref": "#/components/schemas/Loop"},
        },
    },
    "paths": {
        "/items/{item_id}": {
            "get": {"operationId": "getItem", "summary": 'Reads "one"'},
            "put": {"operationId": "putItem"},
            "delete": {"operationId": "deleteItem"},
            "parameters": [],
        },
        "/items/featured": {"get": {}, "trace": {}},
        "/items/{item.id}/{item-id}.json": {"get": {}},
        "/items/{id}:archive": {"post": {"operationId": "archive"}},
        "/items/{id}.csv": {"post": {"operationId": "load"}},
        "/items/{other}.zip": {"post": {"operationId": "purgeItem"}},
        "/items/{name}:{tag}": {"post": {"operationId": "tagItem"}},
        "/payouts": {
            "post": {
                "requestBody": {
                    "content": {
                        "text/plain": {},
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/Money"}
                        },
                    }
                }
            }
        },
        "/refunds": {"post": {"summary": "Refund a payment"}},
        "/notes": {
            "post": {
                "summary": "Send a note by mail",
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/Loop"}
                        }
                    }
                },
            },
            "x-other": 3,
        },
        "/ref": {"$ref": "#/paths/~1items~1featured"},
        "/elsewhere": {"$ref": "https://other.test/paths.json"},
        "/a//b": {"get": {}},
        "/a;b/{x}": {"get": {}},
    },
}


def made(tmp_path: Path, document: object, origin: str | None = None) -> Service:
    file = tmp_path / "openapi.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    text = service_file("shop", file, origin)
    return parse_service("shop", text, shipped_catalogue(), tmp_path)


def test_every_operation_is_a_route(tmp_path: Path) -> None:
    """Reads, writes, sends, payments and deletions are told apart, none hides one."""
    service = made(tmp_path, DOCUMENT)
    assert str(service.origin) == "https://eu.shop.test"
    assert [(r.method, r.path, r.scope) for r in service.routes] == [
        ("GET", "/v2/items/featured", "read:records"),
        ("POST", "/v2/items/{id}:archive", "write:records"),
        ("DELETE", "/v2/items/{item_id}", "delete:records"),
        ("GET", "/v2/items/{item_id}", "read:records"),
        ("PUT", "/v2/items/{item_id}", "write:records"),
        ("GET", "/v2/items/{item_id}/{item-id}", "read:records"),
        # Of two that no template tells apart, the stricter one.
        ("POST", "/v2/items/{other}", "delete:records"),
        ("POST", "/v2/notes", "send:email"),
        ("POST", "/v2/payouts", "send:payment"),
        ("GET", "/v2/ref", "read:records"),
        ("POST", "/v2/refunds", "refund:payment"),
    ]
    (payout,) = (r for r in service.routes if r.path == "/v2/payouts")
    assert {name: str(s[0]) for name, s in payout.parameters.items()} == {
        "amount": "body:/amount",
        "currency": "body:/currency",
        "recipients": "count:body:/to",
    }
    credential = service.credential
    assert (credential.kind, credential.name) == ("header", "X-Api-Key")
    assert credential.secrets == ("shop",)


def test_what_cannot_be_a_route_is_said(tmp_path: Path) -> None:
    """Paths that the gateway refuses stand in a comment, on one line."""
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(DOCUMENT))
    text = service_file("shop", file, None)
    assert "# Left out, for no route can name it: GET /a//b\n" in text
    assert "GET /a;b/{x}" in text
    assert text.startswith("# Shop [[routes]] 2\n")


def test_yaml_is_the_same_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A YAML document gives the same routes; without a reader, what to do is said."""
    yaml = pytest.importorskip("yaml")
    file = tmp_path / "openapi.yaml"
    file.write_text(yaml.safe_dump({**DOCUMENT, "openapi": "3.1.0"}))
    same = service_file("shop", file, None)
    assert made(tmp_path, DOCUMENT).routes == (
        parse_service("shop", same, shipped_catalogue(), tmp_path).routes
    )
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UsageError, match="no YAML reader") as refused:
        service_file("shop", file, None)
    assert "pip install pyyaml" in refused.value.remedy


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("- a\n- b", "no OpenAPI document"),
        ("a: [", "cannot be read"),
        ("!!python/object/apply:os.system [id]", "cannot be read"),
        ({"swagger": "2.0"}, "no OpenAPI 3 document"),
        ({"openapi": "4.0.0"}, "no OpenAPI 3 document"),
        ({"openapi": "3.0.0", "paths": {}}, "names no server"),
        ({"openapi": "3.0.0", "servers": [{"url": "/v1"}]}, "names no server"),
    ],
)
def test_other_documents_are_refused(
    tmp_path: Path, document: object, said: str
) -> None:
    """What is no OpenAPI 3 document is refused in a line, and nothing in it runs."""
    with pytest.raises(UsageError, match=said):
        made(tmp_path, document)


def test_an_origin_takes_the_place_of_the_servers(tmp_path: Path) -> None:
    """--origin counts before the document's; the server's path stays."""
    document = {
        "openapi": "3.0.0",
        "servers": [{"url": "/v1"}],
        "paths": {"/a": {"get": {}}},
    }
    service = made(tmp_path, document, "http://shop.test:8080")
    assert str(service.origin) == "http://shop.test:8080"
    assert [route.path for route in service.routes] == ["/v1/a"]


WORDS = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            WORDS
            | st.sampled_from(
                [
                    "get",
                    "post",
                    "$ref",
                    "requestBody",
                    "content",
                    "schema",
                    "properties",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.slow
@given(
    paths=st.dictionaries(WORDS | st.from_regex(r"/[a-z{}.:]{0,12}"), JSON, max_size=4),
    title=WORDS,
    schemes=JSON,
)
def test_any_document_makes_a_file_that_parses(
    tmp_path_factory: pytest.TempPathFactory, paths: Any, title: str, schemes: Any
) -> None:
    """Whatever stands in it, the file is valid: no text breaks out of its place."""
    document = {
        "openapi": "3.1.0",
        "info": {"title": title},
        "servers": [{"url": "https://shop.test"}],
        "paths": paths,
        "components": {"securitySchemes": {"a": schemes}},
    }
    folder = tmp_path_factory.mktemp("api")
    service = made(folder, document)
    assert str(service.origin) == "https://shop.test"


FRAMING = ("Host", "Accept", "X_Odd", "X-HTTP-Method-Override", "X-HTTP-Verb")


def test_header_parameters_and_media_types_are_taken_over(tmp_path: Path) -> None:
    """What the document says a request has may leave; no header that frames it may."""
    version = {"in": "header", "name": "X-Version"}
    framing = [{"in": "header", "name": n} for n in FRAMING]

    def takes(*types: str) -> dict[str, object]:
        return {"requestBody": {"content": {one: {} for one in types}}}

    document = {
        "openapi": "3.1.0",
        "servers": [{"url": "https://api.test"}],
        "components": {"parameters": {"v": version}},
        "paths": {
            "/a": {
                "parameters": [{"$ref": "#/components/parameters/v"}, *framing],
                "post": {
                    "parameters": [{"in": "header", "name": "If-Range"}],
                    **takes(
                        *("application/json; charset=utf-8", "image/png"),
                        "application/vnd.api+json",
                    ),
                },
                "delete": takes("application/json"),
                "put": takes("image/png", "application/pdf", "text/*"),
                "patch": takes("multipart/form-data"),
            }
        },
    }
    path = tmp_path / "api.json"
    path.write_text(json.dumps(document))
    text = service_file("api", path, None)
    routes = {
        one.method: one
        for one in parse_service("api", text, shipped_catalogue(), tmp_path).routes
    }
    assert routes["POST"].listed == {"x-version", "if-range"}
    assert routes["DELETE"].listed == {"x-version"}
    kinds = {method: one.content.kind for method, one in routes.items()}
    assert kinds == {
        "POST": None,
        "DELETE": "json",
        "PUT": "opaque",
        "PATCH": "multipart",
    }
    assert routes["POST"].content.types == ("application/vnd.api+json",)
    assert routes["PUT"].content.types == ("image/png", "application/pdf")


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        *[
            ("/orders/{id}/delete", "delete:records"),
            ("/delete/{id}", "delete:records"),
        ],
        *[("/orders/{id}/pay", "send:payment"), ("/pay/", "send:payment")],
        *[("/exec", "write:records"), ("/items/{id}:cancel", "delete:records")],
        *[("/chat.postMessage/send", "send:email"), ("/Send", "send:email")],
        *[("/refund.json", "refund:payment"), ("/mail/sendDraft", "send:email")],
        *[("/files/start-sync", "write:records"), ("/user.update", "write:records")],
        *[("/messages", "read:records"), ("/payments/{id}", "read:records")],
        *[("/settings", "read:records"), ("/addresses", "read:records")],
        *[("/deleted", "read:records"), ("/{id}", "read:records")],
        *[("/payouts/pay/history", "read:records"), ("/", "read:records")],
    ],
)
def test_a_get_whose_path_ends_in_a_verb_is_no_read(path: str, scope: str) -> None:
    """Such a route changes something, whatever its method; nouns are read."""
    assert guess_scope("get", path) == guess_scope("head", path) == scope
