"""Requests and answers of the operators' API, as both of its clients have them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar
from urllib.parse import urlencode

import msgspec

from agentvault_tui.errors import (
    AgentVaultError,
    ConflictError,
    FactorRefusedError,
    LedgerUnwritableError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from agentvault_tui.operator_api.calls import EVENT_KINDS, AnswerT, ApiCall
from agentvault_tui.operator_api.changes import ChangeInfo
from agentvault_tui.operator_api.codec import decode, encode
from agentvault_tui.operator_api.ending import DecisionAnswer
from agentvault_tui.operator_api.shapes import ProblemInfo, WireShape
from agentvault_tui.operator_api.sse import Frame
from agentvault_tui.text import visible

if TYPE_CHECKING:
    from agentvault_tui.operator_api.remote import BrokerAddress

T = TypeVar("T", bound=WireShape)

_REMEDY: Final = "start one with `agentvault serve`, or with its console: `agentvault`"
NETWORK: Final = "does it run, and does the network between let you through?"
_KINDS: Final[Mapping[int, type[AgentVaultError]]] = {
    400: UsageError,
    404: NotFoundError,
    409: ConflictError,
    413: UsageError,
    415: UsageError,
    422: UsageError,
    503: LedgerUnwritableError,
}


class ChangeWaitsError(ConflictError):
    """The call became a change that waits for an approver's factor."""

    def __init__(self, change: ChangeInfo) -> None:
        super().__init__(
            f"{visible(change.summary, 200)}: it waits for an approver's factor"
            f" (fingerprint {change.fingerprint})",
            f"agentvault changes approve {change.id}",
        )
        self.change = change


def read_events(frames: list[Frame]) -> list[WireShape]:
    """Read the content of the stream's frames; of an unknown kind, nothing.

    Raises:
        AgentVaultError: a frame is malformed.
    """
    return [
        read_answer(frame.data, kind)
        for frame in frames
        if (kind := EVENT_KINDS.get(frame.kind)) is not None
    ]


def becomes_change(call: ApiCall[Any]) -> bool:
    """Check whether a 202 of *call* is a change that waits for a person."""
    return call.status != 202 and call.answer not in {ChangeInfo, DecisionAnswer}


def raise_waiting(change: ChangeInfo) -> NoReturn:
    """Raise that a change waits for a person.

    Raises:
        ChangeWaitsError: always.
    """
    raise ChangeWaitsError(change)


def prepare_request(
    call: ApiCall[AnswerT], given: WireShape | None, parameters: Mapping[str, str | int]
) -> tuple[str, bytes | None]:
    """Encode a call.

    Args:
        call: the kind of call.
        given: its query, or its body if it is a POST.
        parameters: those of its path.

    Returns:
        the path with its query, and the body if it has one.
    """
    path = call.at(**parameters)
    if call.method == "POST":
        return path, b"{}" if given is None else encode(given)
    members = {} if given is None else msgspec.to_builtins(given)
    query = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in members.items()
        if value is not None
    }
    return f"{path}?{urlencode(query)}" if query else path, None


def read_answer(content: bytes | str, kind: type[T]) -> T:
    """Decode an answer.

    Raises:
        AgentVaultError: it is no JSON, or not of this version.
    """
    try:
        return decode(content, kind)
    except msgspec.ValidationError as error:
        raise AgentVaultError(
            f"the broker's answer is not one of this version ({visible(error, 120)})",
            "are both of the same version?",
        ) from error
    except ValueError as error:
        raise AgentVaultError(
            "the broker's answer is not JSON", "are both of the same version?"
        ) from error


def read_refusal(status: int, content: bytes) -> AgentVaultError:
    """Read an RFC 9457 problem document into an error of ours."""
    try:
        problem = decode(content, ProblemInfo)
    except ValueError:
        problem = ProblemInfo()
    what = problem.detail or f"the broker answered with HTTP status {status}"
    remedy = problem.remedy if problem.remedy is not msgspec.UNSET else ""
    if isinstance(problem.factor, str):
        factor = visible(problem.factor, 40)
        return FactorRefusedError(factor, visible(what, 1000), visible(remedy, 1000))
    kind = _KINDS.get(status, RefusedError)
    return kind(visible(what, 1000), visible(remedy, 1000))


def not_connected(broker: BrokerAddress, error: Exception) -> UnreachableError:
    """Say that no connection could be made, and why where it is the certificate."""
    if isinstance(broker, Path):
        return UnreachableError(f"no broker answers at {broker}", _REMEDY)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return UnreachableError(f"no broker answers at {broker}", NETWORK)
    return UnreachableError(
        f"the certificate of {broker} is not trusted"
        f" ({visible(cause.verify_message, 100)})",
        "--ca-file FILE names the authority that made it",
    )
