"""Subjects of platforms' tokens: which are registered, and which one token matches.

A registered subject is ``ISSUER:SUBJECT``, where ISSUER names a table of
``[issuers]``. Segments of SUBJECT stand between ``/`` and ``:``; ``*`` is one whole
segment that is not empty.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from agentvault_tui.errors import UsageError
from agentvault_tui.model import AgentId
from agentvault_tui.settings import CONNECTION
from agentvault_tui.text import visible

_PLAIN: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,498}[\x21-\x7e])?")
_BETWEEN: Final = re.compile("([/:])")
_AUTHORITY: Final = re.compile("[^/:*]+://[^/*]+/.+")
_ANY: Final = "*"
_DOMAIN: Final = re.compile(r"[a-z0-9._*-]{1,255}")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._*-]+")
_REMEDY: Final = "for example github:repo:acme/app:ref:refs/heads/main"

Shape = tuple[str, tuple[str, ...]]
"""An issuer's name, and the separators of segments."""
_Key = tuple[Shape, tuple[str, ...]]


def split_subject(text: str) -> tuple[Shape, tuple[str, ...]]:
    """Return the shape and the segments of ``ISSUER:SUBJECT``."""
    issuer, _, subject = text.partition(":")
    parts = _BETWEEN.split(subject)
    return (issuer, tuple(parts[1::2])), tuple(parts[::2])


def _is_plain_path(subject: str) -> bool:
    """Check whether each segment of a SPIFFE ID's path is one (SPIFFE-ID section 2.2).

    An escape, ``.``, ``..`` and an empty segment may name another workload to a program
    that normalizes them. ``*`` is ours. Every other subject is plain.
    """
    scheme, _, rest = subject.partition("://")
    if scheme.casefold() != "spiffe":
        return True
    domain, *segments = rest.split("/")
    return bool(_DOMAIN.fullmatch(domain)) and all(
        _SEGMENT.fullmatch(each) and each not in {".", ".."} for each in segments
    )


def check_subject(text: str) -> None:
    """Refuse an invalid subject, or one whose ``*`` lets strangers in.

    If a subject begins with ``SCHEME://``, that and the next segment, a SPIFFE trust
    domain, identify the owner; everywhere else the first two segments do:
    ``repo`` and its owner, ``system:serviceaccount``.

    Args:
        text: ``ISSUER:SUBJECT``.

    Raises:
        UsageError: it has no issuer or no subject, characters that no platform writes,
            or ``*`` where it is a part of a segment or says who vouches.
    """
    issuer, _, subject = text.partition(":")
    if not CONNECTION.fullmatch(issuer) or not _PLAIN.fullmatch(subject):
        raise UsageError(f"{visible(text, 60)} is no ISSUER:SUBJECT", _REMEDY)
    if not _is_plain_path(subject):
        raise UsageError(
            f"{visible(subject, 60)} has an empty segment, '.', '..' or an escape",
            "write the path as SPIFFE-ID section 2.2 does: letters, digits, '.', '-'"
            " and '_'",
        )
    _, segments = split_subject(text)
    if not any(_ANY in each for each in segments):
        return
    if any(_ANY in each and each != _ANY for each in segments):
        raise UsageError(
            "'*' stands for one whole segment, between '/' and ':'",
            "give the segment itself, or '*' alone",
        )
    # "spiffe://domain/path" has the segments spiffe, "", "", domain, path.
    leading = 4 if "://" in subject else 2
    if _ANY in segments[:leading] or (
        leading == 4 and not _AUTHORITY.fullmatch(subject)
    ):
        raise UsageError(
            "'*' never stands for the trust domain, for the owner of a repository or "
            "for what begins a subject",
            "name it, and leave '*' to what follows",
        )


class Subjects:
    """The registered subjects, and their agents."""

    def __init__(self) -> None:
        self._agents: dict[_Key, tuple[AgentId, ...]] = {}
        self._segments: dict[Shape, set[tuple[str, ...]]] = defaultdict(set)
        self._wild: dict[Shape, set[tuple[int, ...]]] = {}
        """Where subjects have ``*``, so that a match looks up few."""

    def add(self, text: str, agent_id: AgentId) -> None:
        """Remember the agent of the subject *text*."""
        shape, segments = key = split_subject(text)
        agents = self._agents.get(key, ())
        if agent_id not in agents:
            self._agents[key] = (*agents, agent_id)
        self._segments[shape].add(segments)
        if _ANY in segments:
            places = tuple(i for i, each in enumerate(segments) if each == _ANY)
            self._wild.setdefault(shape, set()).add(places)

    def discard(self, text: str, agent_id: AgentId) -> None:
        """Forget it: its agent was not registered after all."""
        key = split_subject(text)
        self._agents[key] = tuple(one for one in self._agents[key] if one != agent_id)

    def matching(self, text: str) -> list[AgentId]:
        """Return the agents whose subjects match *text*, with the issuer's name.

        Nothing is folded: another case or a lookalike is another subject.
        """
        subject = text.partition(":")[2]
        if not _PLAIN.fullmatch(subject) or not _is_plain_path(subject):
            return []
        shape, segments = key = split_subject(text)
        keys = {key: None}
        for places in self._wild.get(shape, ()):
            if all(segments[i] for i in places):
                wild = list(segments)
                for i in places:
                    wild[i] = _ANY
                keys[shape, tuple(wild)] = None
        return [one for each in keys for one in self._agents.get(each, ())]

    def overlapping(self, text: str) -> Iterator[AgentId]:
        """Yield agents whose subjects some token could match that matches *text*.

        Two without ``*`` do not count: they are the same, and ``client_id`` picks.
        """
        shape, segments = split_subject(text)
        for other in self._segments.get(shape, ()):
            if _ANY in (*segments, *other) and all(
                one == two or (_ANY in {one, two} and one and two)
                for one, two in zip(segments, other, strict=True)
            ):
                yield from self._agents[shape, other]
