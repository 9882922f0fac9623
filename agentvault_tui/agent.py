"""Ask AgentVault before a Python function runs: for tools of agents, in any framework.

Standard library alone, so that it can stand in an agent's own environment.

    from agentvault_tui.agent import guard

    @guard("send:email", resource="mail:{to}", on_refusal=str)
    def send(to: str, body: str) -> str:
        "Send a message."

It asks at ``/access/v1/evaluation`` (AuthZEN Authorization API 1.0), waits for a person
where one has to decide, and runs the function after a yes alone: a broker that is down
or answers rubbish is a no.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import functools
import hashlib
import http.client
import inspect
import json
import math
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar, cast
from urllib.parse import quote_plus, urlsplit

__all__ = ["RefusalError", "Vault", "guard"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_LONG: Final = 4_000
"""Characters of a text that the broker takes; longer ones are sent as their digest."""
_MARGIN: Final = 10.0
"""Seconds the broker has to answer, next to those it waits for a person."""


class RefusalError(Exception):
    """The function may not run now, and did not.

    Attributes:
        reason: a stable code, such as ``scope_not_granted``, ``stepup_denied``,
            ``stepup_required`` if it still waits for a person, or ``undecided`` if the
            broker did not answer.
        auth_req_id: the step-up that waits; approved, the same call is allowed once.
        decision_id: of the record.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        auth_req_id: str | None = None,
        decision_id: str | None = None,
    ) -> None:
        """Store the *reason* with a sentence for the model or the person."""
        super().__init__(message)
        self.reason = reason
        self.auth_req_id = auth_req_id
        self.decision_id = decision_id


@dataclass(frozen=True)
class Vault:
    """A broker, and how this agent authenticates to it."""

    url: str
    """Where agents reach it, such as ``http://127.0.0.1:7717``."""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    token_file: str = ""
    """In place of id and secret: a file with a live token, read at each call."""
    ca_file: str = ""
    """The authority of an https broker, if it is not one of the system's."""

    @classmethod
    def from_environment(cls) -> Vault:
        """Read ``AGENTVAULT_URL`` and how to authenticate.

        That is ``AGENTVAULT_TOKEN_FILE``, or ``AGENTVAULT_CLIENT_ID`` with
        ``AGENTVAULT_CLIENT_SECRET_FILE``; ``AGENTVAULT_CA_FILE`` besides. No variable
        holds a secret.
        """
        env = os.environ
        secret_file = env.get("AGENTVAULT_CLIENT_SECRET_FILE")
        return cls(
            url=env.get("AGENTVAULT_URL", "http://127.0.0.1:7717"),
            client_id=env.get("AGENTVAULT_CLIENT_ID", ""),
            client_secret=Path(secret_file).read_text().strip() if secret_file else "",
            token_file=env.get("AGENTVAULT_TOKEN_FILE", ""),
            ca_file=env.get("AGENTVAULT_CA_FILE", ""),
        )

    def evaluate(
        self,
        scope: str,
        resource: str,
        parameters: Mapping[str, object],
        *,
        reason: str = "",
        wait: float = 0.0,
    ) -> None:
        """Return if the action may happen now, once.

        Args:
            scope: one scope of the catalogue.
            resource: ``type:id``.
            parameters: the action's parameters; JSON.
            reason: the agent's own words.
            wait: seconds to wait for a person where one has to decide.

        Raises:
            RefusalError: it may not, or the broker did not answer.
        """
        body = _body(scope, resource, parameters, reason)
        _Evaluation(self, body, wait).ask()

    def _authorization(self) -> str:
        if self.token_file:
            return f"Bearer {Path(self.token_file).read_text().strip()}"
        # RFC 6749 section 2.3.1: both halves are form-encoded.
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca_file or None)
            return http.client.HTTPSConnection(
                host, port, timeout=timeout, context=context
            )
        return http.client.HTTPConnection(host, port, timeout=timeout)


class _Evaluation:
    """One question, on a connection of its own that can be closed from elsewhere."""

    def __init__(self, vault: Vault, body: Mapping[str, object], wait: float) -> None:
        self._vault = vault
        self._body = body
        self._wait = max(0, math.ceil(wait))
        self._open = vault._connection(self._wait + _MARGIN)  # noqa: SLF001

    def ask(self) -> None:
        """Return after a yes; raise RefusalError after anything else."""
        try:
            status, answer = self._reply()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise RefusalError(
                "undecided", f"AgentVault could not be asked: {type(error).__name__}"
            ) from error
        finally:
            self._open.close()
        in_context = answer.get("context") if isinstance(answer, dict) else None
        context: Mapping[str, Any] = in_context if isinstance(in_context, dict) else {}
        if (
            status == 200
            and isinstance(answer, dict)
            and answer.get("decision") is True
        ):
            return
        if status != 200:
            what = (
                answer.get("error_description", "") if isinstance(answer, dict) else ""
            )
            text = f"AgentVault did not decide ({status}): {what}"
            raise RefusalError("undecided", text)
        raise RefusalError(
            str(context.get("reason", "undecided")),
            str(context.get("message", "AgentVault said no.")),
            auth_req_id=context.get("auth_req_id"),
            decision_id=context.get("decision_id"),
        )

    def _reply(self) -> tuple[int, object]:
        headers = {
            "Content-Type": "application/json",
            "Authorization": self._vault._authorization(),  # noqa: SLF001
            **({"Prefer": f"wait={self._wait}"} if self._wait else {}),
        }
        body = json.dumps(self._body, allow_nan=False)
        self._open.request("POST", "/access/v1/evaluation", body, headers)
        response = self._open.getresponse()
        return response.status, json.loads(response.read(1_000_000))

    async def ask_in_a_thread(self) -> None:
        """Ask without holding up the event loop; cancelled, spend nothing."""
        try:
            await asyncio.to_thread(self.ask)
        except asyncio.CancelledError:
            if (connected := self._open.sock) is not None:
                connected.shutdown(socket.SHUT_RDWR)  # the broker sees that we left
            raise


def guard(
    scope: str,
    *,
    resource: str = "",
    parameters: Callable[..., Mapping[str, object]] | None = None,
    describe: Mapping[str, Callable[[Any], object]] | None = None,
    reason: str = "",
    wait: float = 60.0,
    on_refusal: Callable[[RefusalError], Any] | None = None,
    vault: Vault | None = None,
) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Make a function, or a coroutine function, ask before each call.

    Request and approval are for this call with all its arguments, long ones by digest.
    If an argument has no JSON form, the call raises `TypeError` before it asks.

    Args:
        scope: the scope the function acts under.
        resource: ``type:id``, ``{name}`` an argument; by default ``function:NAME``.
        parameters: called with the arguments by name, returns others next to them.
        describe: by argument, a function that returns its JSON form, such as
            ``{"amount": str}`` for a `Decimal`.
        reason: the agent's own words, shown to the person last.
        wait: seconds to wait for a person where one has to decide.
        on_refusal: makes the result of a refused call, such as `str`, which the model
            reads; by default `RefusalError` is raised.
        vault: the broker; by default the environment's at each call.

    Returns:
        a decorator; the decorated function has the signature of the one it wraps.

    Raises:
        ValueError: *resource* is no ``type:id``; or *resource* or *describe* names an
            argument that the function does not have.
        TypeError: a generator is decorated.
    """
    if resource and not resource.partition(":")[2]:
        raise ValueError(f"{resource!r} is no resource: write type:id")
    guarded = _Guard(
        scope, resource, parameters, describe or {}, reason, wait, on_refusal, vault
    )

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Return *function* asking first, a coroutine function without blocking."""
        guarded.check(function)
        if inspect.iscoroutinefunction(function):
            return cast("Callable[_P, _R]", guarded.asking_async(function))

        @functools.wraps(function)
        def call(*arguments: _P.args, **named: _P.kwargs) -> _R:
            try:
                question = guarded.question(function, arguments, named)
                question.evaluation.ask()
                question.check()
            except RefusalError as error:
                return cast("_R", guarded.refused(error))
            return function(*question.bound.args, **question.bound.kwargs)

        return call

    return decorate


@dataclass(frozen=True)
class _Question:
    """One call, and the question about it."""

    evaluation: _Evaluation
    bound: inspect.BoundArguments
    """Its arguments: JSON values are copies, which no other party can change."""
    describe: Mapping[str, Callable[[Any], object]]
    parameters: Mapping[str, object]
    """How the arguments were stated."""

    def check(self) -> None:
        """Check that the call is still the one that was allowed.

        Raises:
            RefusalError: an argument that is described is stated differently now.
        """
        if self.parameters != _stated_arguments(self.bound, self.describe)[1]:
            text = "An argument was changed while the call waited for its answer."
            raise RefusalError("arguments_changed", text)


@dataclass(frozen=True)
class _Guard:
    """The arguments of `guard`."""

    scope: str
    resource: str
    parameters: Callable[..., Mapping[str, object]] | None
    describe: Mapping[str, Callable[[Any], object]]
    reason: str
    wait: float
    on_refusal: Callable[[RefusalError], Any] | None
    vault: Vault | None

    def check(self, function: Callable[..., object]) -> None:
        """Refuse an impossible guard, when it is decorated."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(
            function
        ):
            raise TypeError("a generator cannot be guarded: guard what it calls")
        arguments = set(inspect.signature(function).parameters)
        for option, names in (
            (repr(self.resource), set(_PLACEHOLDER.findall(self.resource))),
            ("describe", set(self.describe)),
        ):
            if missing := names - arguments:
                raise ValueError(f"{option} names no argument {min(missing)!r}")

    def asking_async(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a coroutine function that asks first."""

        @functools.wraps(function)
        async def guarded(*arguments: Any, **named: Any) -> Any:
            try:
                question = self.question(function, arguments, named)
                await question.evaluation.ask_in_a_thread()
                question.check()
            except RefusalError as error:
                return self.refused(error)
            return await function(*question.bound.args, **question.bound.kwargs)

        return guarded

    def question(
        self,
        function: Callable[..., object],
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> _Question:
        """Return the question about one call.

        Raises:
            TypeError: an argument has no JSON form.
            RefusalError: the broker cannot be asked.
        """
        bound = inspect.signature(function).bind(*arguments, **named)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            # What is changed during the wait must not be what the function gets.
            if isinstance(value, dict | list | tuple) and _is_json(value):
                bound.arguments[name] = copy.deepcopy(value)
        described, stated = _stated_arguments(bound, self.describe)
        parameters = dict(stated)
        if self.parameters is not None:
            parameters |= self.parameters(**bound.arguments)
        on = self.resource or f"function:{function.__qualname__}"
        on = _PLACEHOLDER.sub(lambda match: _named(match[1], described[match[1]]), on)
        try:
            vault = self.vault or Vault.from_environment()
        except (OSError, ValueError) as error:
            text = f"AgentVault could not be asked: {type(error).__name__}"
            raise RefusalError("undecided", text) from error
        body = _body(self.scope, on, parameters, self.reason)
        evaluation = _Evaluation(vault, body, self.wait)
        return _Question(evaluation, bound, self.describe, stated)

    def refused(self, error: RefusalError) -> Any:
        """Return the result of a refused call, or raise *error*."""
        if self.on_refusal is None:
            raise error
        return self.on_refusal(error)


def _body(
    scope: str, resource: str, parameters: Mapping[str, object], reason: str
) -> dict[str, object]:
    kind, _, name = resource.partition(":")
    return {
        "action": {"name": scope, "properties": parameters},
        "resource": {"type": kind, "id": name},
        **({"context": {"reason": reason}} if reason else {}),
    }


def _stated_arguments(
    bound: inspect.BoundArguments, describe: Mapping[str, Callable[[Any], object]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return arguments as they are described, and as an action's parameters.

    Raises:
        TypeError: one has no JSON form.
    """
    described = {
        name: describe[name](value) if name in describe else value
        for name, value in bound.arguments.items()
    }
    # A description may be a part of the argument, which changes with it.
    stated = {n: copy.deepcopy(_stated(n, one)) for n, one in described.items()}
    return described, stated


def _stated(name: str, value: Any) -> Any:
    """Return an argument as JSON; a long one as its digest.

    Raises:
        TypeError: it has no JSON form, or one that another value has too.
    """
    if not _is_json(value):
        raise TypeError(
            f"the argument {name!r} is a {type(value).__name__} without a JSON form, "
            f"so it cannot be approved: state it with describe={{{name!r}: …}}"
        )
    text = json.dumps(value, allow_nan=False)
    if len(text) <= _LONG:
        return value
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "length": len(text)}


def _named(name: str, value: Any) -> str:
    """Return an argument as a resource names it: as its JSON form does.

    The text of an enumeration's member, or of another subclass of `str` or `int`, may
    differ from the value that the function works with.

    Raises:
        TypeError: it is no string and no whole number.
    """
    plain = json.loads(json.dumps(value)) if _is_json(value) else None
    if not isinstance(plain, str | int) or isinstance(plain, bool):
        raise TypeError(
            f"the resource names the argument {name!r}, which is a"
            f" {type(value).__name__} and no string or whole number: state it with"
            f" describe={{{name!r}: …}}"
        )
    return str(plain)


def _is_json(value: Any, depth: int = 64) -> bool:
    """Check whether a value is JSON without conversion of keys (RFC 8259)."""
    if isinstance(value, dict):
        inner = list(value.values())
        plain = all(type(key) is str for key in value)
    elif isinstance(value, list | tuple):
        inner, plain = list(value), True
    else:
        finite = not isinstance(value, float) or math.isfinite(value)
        return finite and (value is None or isinstance(value, str | int | float))
    return plain and depth > 0 and all(_is_json(one, depth - 1) for one in inner)
