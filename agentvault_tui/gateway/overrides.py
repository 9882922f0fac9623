"""Fields and headers that services read as method, path, type or credential.

Rails, Laravel, Symfony and Spring read the method from ``_method``, Salesforce from
``_HttpMethod``, LoopBack from ``$httpMethod``, and many proxies and frameworks from
headers. Google's front ends read further headers from the query parameter
``$httpHeaders``. WordPress reads the path of its API from ``rest_route``. Zope appends
the name of a field ``x:method`` to the path, and Struts runs the method or action that
a field ``method:x`` or ``action:x`` names. Google takes the ``Content-Type`` from
``$ct``, Elasticsearch from ``source_content_type``, Parse from ``_ContentType``, and
Django REST framework before 3.3 reads the form field ``_content`` as the body.
LoopBack and RFC 6750 (sections 2.2 and 2.3) have tokens in ``access_token``, Laravel in
``api_token``, GitLab in ``private_token``, and GitLab's ``sudo`` names another user.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from agentvault_tui.errors import UnreadableRequestError
from agentvault_tui.gateway.names import (
    field_names,
    field_readings,
    fold_case,
    fold_name,
    split_parts,
)
from agentvault_tui.text import visible

METHODS: Final = frozenset(
    "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT LINK UNLINK PURGE PROPFIND"  # noqa: SIM905
    " PROPPATCH MKCOL COPY MOVE LOCK UNLOCK SEARCH REPORT MERGE BIND UNBIND REBIND ACL"
    " CHECKIN CHECKOUT LABEL MKACTIVITY MKCALENDAR MKREDIRECTREF MKWORKSPACE ORDERPATCH"
    " PRI QUERY UNCHECKOUT UPDATE UPDATEREDIRECTREF VERSION-CONTROL "
    "BASELINE-CONTROL".split()
)
"""IANA's registry of HTTP methods, with a few that servers know next to it."""
_METHOD: Final = "method"
_NAMES: Final = frozenset(
    fold_name(name)
    for name in (
        "_HttpMethod",
        "$httpHeaders",
        "$httpMethod",
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-HTTP-Verb",
    )
)
_ROUTE: Final = fold_name("rest_route")
"""`WP::parse_request` takes it from a form, then from the query, then the path."""
_TYPES: Final = frozenset({"$ct", "sourcecontenttype"})
_MARKED_TYPES: Final = frozenset({"content", "contenttype"})
"""After an underscore: without it, APIs have them for their own content."""
_CREDENTIALS: Final = frozenset(
    fold_name(name)
    for name in (
        "access_token",
        "api_token",
        "auth_token",
        "bearer_token",
        "job_token",
        "oauth_token",
        "private_token",
        "user_token",
        "authorization",
        "$cred",
        "X-Amz-Credential",
        "X-Goog-Credential",
        "AWSAccessKeyId",
        "api_username",
        "sudo",
        "$userProject",
    )
)
_TYPED_ROUTES: Final = frozenset(
    fold_name(name) for name in ("method", "action", "default_method", "default_action")
)
"""`ZPublisher.HTTPRequest` takes them after a colon, Struts before one."""


def is_override(name: str, value: object) -> bool:
    """Check whether a service may take the field *name* for the request's method.

    A plain ``method`` is one only where its value is a method of HTTP.
    """
    by_name = _is_override(name)
    if by_name is None:
        return isinstance(value, str) and value.strip().upper() in METHODS
    return by_name


@lru_cache(maxsize=1024)
def _is_override(name: str) -> bool | None:
    """Check the same by the name alone; None for a plain ``method``."""
    if name.isascii() and "h" not in name and "H" not in name:
        return False  # each of the names has one
    folded = [(one, fold_name(one)) for one in set(field_readings(name))]
    plain = [one for one, fold in folded if fold == _METHOD]
    if not plain:
        return any(fold in _NAMES for _, fold in folded)
    normal = {unicodedata.normalize("NFKC", one).casefold().strip() for one in plain}
    return None if normal == {_METHOD} else True


def check_overrides(where: str, fields: Iterable[tuple[str, object]]) -> None:
    """Refuse fields by which a service may take the request for another method.

    Args:
        where: the part of the request that has them, for the message.
        fields: names and values, without those that the route itself reads.

    Raises:
        UnreadableRequestError: 400 ``method_override``.
    """
    for name, value in fields:
        if is_override(name, value):
            raise UnreadableRequestError(
                "method_override",
                f"the {where} asks for another method: {visible(name, 60)}. If the"
                " service reads none there, its file may say method_override = false",
            )


def check_routes(where: str, names: Iterable[str]) -> None:
    """Refuse fields by which a service may take the request for one of another path.

    Args:
        where: the part of the request that has them, for the message.
        names: of its fields, without those that the route itself reads.

    Raises:
        UnreadableRequestError: 400 ``route_override``.
    """
    for name in names:
        if _ROUTE in field_names(name) or _is_typed_route(name):
            raise UnreadableRequestError(
                "route_override",
                f"the {where} asks for another path: {visible(name, 60)}. If that is"
                " something else to the service, its route may name it in read",
            )


def _is_typed_route(name: str) -> bool:
    colon = not name.isalnum() and ":" in fold_case(name)
    return colon and not _TYPED_ROUTES.isdisjoint(map(fold_name, split_parts(name)))


def check_types(where: str, names: Iterable[str]) -> None:
    """Refuse fields by which a service may take a body for one of another type.

    Args:
        where: the part of the request that has them, for the message.
        names: of its fields, without those that the route itself reads.

    Raises:
        UnreadableRequestError: 400 ``type_override``.
    """
    for name in names:
        if _is_type(name):
            raise UnreadableRequestError(
                "type_override",
                f"the {where} asks for another type: {visible(name, 60)}. If that is"
                " something else to the service, its route may name it in read",
            )


@lru_cache(maxsize=1024)
def _is_type(name: str) -> bool:
    for one in field_readings(name):
        fold = fold_name(one)
        marked = fold in _MARKED_TYPES and fold_case(one).strip().startswith("_")
        if marked or fold in _TYPES:
            return True
    return False


def check_credentials(where: str, names: Iterable[str], own: str) -> None:
    """Refuse fields that a service may read as a credential or another identity.

    Args:
        where: the part of the request that has them, for the message.
        names: of its fields, without those that the route itself reads.
        own: the name of the service's credential, which counts also without ``X-``.

    Raises:
        UnreadableRequestError: 400 ``credential_override``.
    """
    fold = fold_name(own)
    refused = _CREDENTIALS | ({fold, fold.removeprefix("x")} if fold else set())
    for name in names:
        if not refused.isdisjoint(field_names(name)):
            raise UnreadableRequestError(
                "credential_override",
                f"the {where} has a credential or account of its own:"
                f" {visible(name, 60)}. If that is something else to the service, its"
                " route may name it in read",
            )
