"""The scope catalogue: meaning, risk and effect of each scope."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from agentvault_tui.errors import PolicyError, SettingsError
from agentvault_tui.model import Risk, Scope
from agentvault_tui.text import visible

MAX_SCOPES: Final = 500
MAX_NAME: Final = 64
_MAX_TEXT: Final = 300
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[_-][a-z0-9]+)*")
_KEYS: Final = frozenset({"description", "risk", "revoking", "effect", "bulk"})


class Effect(StrEnum):
    """The effect of using a scope: the groups a policy rule names."""

    READ = "read"
    WRITE = "write"
    SEND = "send"
    DELETE = "delete"
    PAY = "pay"

    @property
    def lasting(self) -> bool:
        """Check whether a token of it may be used more than once."""
        return self in {Effect.READ, Effect.WRITE}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_READ_VERBS: Final = _words("read list get search view export download")
_SEND_VERBS: Final = _words("send post publish broadcast invite notify")
_DELETE_VERBS: Final = _words(
    "delete remove purge erase wipe destroy drop revoke cancel terminate"
)
_PAY_VERBS: Final = _words("pay transfer refund withdraw wire charge")
_PAY_NOUNS: Final = _words(
    "payment payments payout payouts transfer transfers money funds refund"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A scope, and the group of effects it belongs to."""

    scope: Scope
    effect: Effect
    bulk: bool
    """One use may change many things, so a request has to say how many."""


class Catalogue:
    """The scopes there are, in the order they were written down."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        """Hold *entries* by name; use [`Catalogue.parse`][] to read a file."""
        self._entries = dict(entries)
        self._lasting = frozenset(
            name for name, entry in entries.items() if entry.effect.lasting
        )
        canonical = [
            [s.name, s.description, s.risk, s.revoking, entry.effect, entry.bulk]
            for entry in self._entries.values()
            for s in (entry.scope,)
        ]
        digest = hashlib.sha256(json.dumps(canonical, ensure_ascii=True).encode())
        self.version: Final = digest.hexdigest()[:12]
        """Short hash over everything the catalogue says."""

    @classmethod
    def parse(cls, text: str, source: str) -> Catalogue:
        """Read a ``scopes.toml``; *source* names it in errors.

        Raises:
            PolicyError: it is not TOML, or a scope in it is malformed; with the line.
        """
        return cls(cls._read(text, source))

    @staticmethod
    def _read(text: str, source: str) -> dict[str, Entry]:
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise PolicyError(
                f"{source} is not TOML ({visible(error)})",
                "correct the line; `agentvault policy check` tries it out",
            ) from error
        for key in table:
            if key != "scopes":
                raise _fault(text, source, key, f"unknown table {visible(key, 60)}")
        scopes = table.get("scopes")
        if not isinstance(scopes, dict) or not scopes:
            raise PolicyError(
                f"{source} holds no scopes",
                'write each as [scopes."read:calendar"] with description, risk and'
                " revoking",
            )
        if len(scopes) > MAX_SCOPES:
            raise PolicyError(f"{source} holds more than {MAX_SCOPES} scopes")
        return {name: _entry(text, source, name, scopes[name]) for name in scopes}

    def extended(self, text: str, source: str, shipped: Catalogue) -> Catalogue:
        """Return this catalogue with the scopes of one more file.

        Args:
            text: the file, written like ``scopes.toml``.
            source: its name in errors.
            shipped: the catalogue; no such file may redefine its scopes.

        Raises:
            PolicyError: it is no catalogue, or defines a scope that exists already.
        """
        own = self._read(text, source)
        for name in own:
            if name in self or name in shipped:
                raise _fault(
                    *(text, source, name),
                    f"{name} is defined already",
                    "give yours another name; scopes.toml replaces shipped scopes",
                )
        if len(self) + len(own) > MAX_SCOPES:
            raise PolicyError(f"with {source} there are more than {MAX_SCOPES} scopes")
        return Catalogue({**self._entries, **own})

    def get(self, name: str) -> Scope | None:
        """Return the scope called *name*, or None."""
        entry = self._entries.get(name)
        return None if entry is None else entry.scope

    def effect(self, name: str) -> Effect:
        """Return the effect of using the known scope *name*."""
        return self._entries[name].effect

    def is_bulk(self, name: str) -> bool:
        """Check whether one use of the known scope *name* may change many things."""
        return self._entries[name].bulk

    def is_single_use(self, names: Iterable[str]) -> bool:
        """Check whether a token of these scopes is good for one action alone.

        One scope that sends, pays or deletes is enough, or an unknown one.
        """
        return not self._lasting.issuperset(names)

    def nearest(self, name: str) -> list[str]:
        """Return the known names most like the unknown *name*, best first."""
        folded = name[:MAX_NAME].casefold().strip()
        first, _, second = folded.partition(":")
        # People write calendar:read or calendar.write as often as they mistype.
        words = set(re.split(r"[^a-z0-9]+", folded)) - {""}
        swapped = f"{second}:{first}"
        ranked = [
            candidate for candidate in (folded, swapped) if candidate in self._entries
        ]
        ranked += difflib.get_close_matches(folded, self._entries)
        ranked += [
            candidate
            for candidate in self._entries
            if words & {candidate.partition(":")[2], candidate.partition(":")[2] + "s"}
        ]
        return list(dict.fromkeys(ranked))[:3]

    def check_connections(self, connections: Mapping[str, Iterable[str]]) -> None:
        """Refuse connections that represent unknown scopes.

        Args:
            connections: the scopes of each, by its name in the settings.

        Raises:
            SettingsError: with the unknown scope and the nearest known ones.
        """
        for name, scopes in connections.items():
            for scope in scopes:
                if scope not in self:
                    near = " or ".join(self.nearest(scope))
                    raise SettingsError(
                        f"connections.{name} names the unknown scope "
                        f"{visible(scope, 60)}",
                        f"did you mean {near}" if near else "agentvault policy check",
                    )

    def is_group(self, word: str) -> bool:
        """Check whether *word* is a group of scopes that a rule may name."""
        return word in action_groups(self)

    def in_group(self, scope: str, word: str) -> bool:
        """Check whether *scope* is *word*, or is in the group of that name."""
        return scope == word or scope in action_groups(self).get(word, ())

    def __iter__(self) -> Iterator[Scope]:
        return (entry.scope for entry in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries


def is_scope_name(name: str) -> bool:
    """Check whether *name* is ``verb:noun`` as we write scopes.

    RFC 6749 section 3.3 allows nearly all of ASCII in a scope-token; agents send these,
    so we allow only lower-case words, which cannot be confused.

    Args:
        name: a word of a ``scope`` parameter.

    Returns:
        True when it may stand in a catalogue.
    """
    verb, colon, noun = name[: MAX_NAME + 1].partition(":")
    return (
        bool(colon)
        and len(name) <= MAX_NAME
        and _NAME.fullmatch(verb) is not None
        and _NAME.fullmatch(noun) is not None
    )


def _entry(text: str, source: str, name: str, table: object) -> Entry:
    """Check one ``[scopes."verb:noun"]`` table."""
    shown = visible(name, 80)
    if not is_scope_name(name):
        raise _fault(
            text,
            source,
            name,
            f"'{shown}' is not a scope name",
            "write verb:noun in lower case, such as read:calendar",
        )
    if not isinstance(table, dict):
        raise _fault(text, source, name, f"{shown} is not a table")
    for key in table:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            remedy = (
                f"did you mean {near[0]}"
                if near
                else f"known: {', '.join(sorted(_KEYS))}"
            )
            what = f"{shown} has an unknown key '{visible(key, 60)}'"
            raise _fault(text, source, name, what, remedy)

    def sentence(key: str) -> str:
        value = table.get(key)
        if not isinstance(value, str) or not value.strip():
            raise _fault(text, source, name, f"{shown} has no {key}", f"add {key} = …")
        if len(value) > _MAX_TEXT or visible(value, _MAX_TEXT * 2) != value:
            what = f"the {key} of {shown} is too long or holds hidden characters"
            remedy = f"write one line of at most {_MAX_TEXT} characters"
            raise _fault(text, source, name, what, remedy)
        return value

    def one_of(key: str, words: tuple[Any, ...], value: Any) -> Any:
        if not any(value == word and type(value) is not int for word in words):
            what = f"the {key} of {shown} is {visible(repr(value), 60)}"
            choices = ", ".join(str(word).lower() for word in words)
            raise _fault(text, source, name, what, f"it may be {choices}")
        return value

    risk = one_of("risk", tuple(Risk), table.get("risk"))
    effect = one_of("effect", tuple(Effect), table.get("effect", _infer(name)))
    scope = Scope(name, sentence("description"), Risk(risk), sentence("revoking"))
    bulk = one_of("bulk", (True, False), table.get("bulk", effect == Effect.WRITE))
    return Entry(scope, Effect(effect), bulk)


def _infer(name: str) -> Effect:
    """Infer a missing effect; payments and deletions come first."""
    verb, _, noun = name.partition(":")
    if verb in _READ_VERBS:
        return Effect.READ
    if verb in _PAY_VERBS or noun in _PAY_NOUNS:
        return Effect.PAY
    if verb in _DELETE_VERBS:
        return Effect.DELETE
    return Effect.SEND if verb in _SEND_VERBS else Effect.WRITE


def _fault(
    text: str, source: str, key: str, what: str, remedy: str = ""
) -> PolicyError:
    """Name the line that holds *key*: tomllib keeps no positions."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("[") and key in line:
            return PolicyError(f"{source} line {number}: {what}", remedy)
    return PolicyError(f"{source}: {what}", remedy)


EFFECT_GROUPS: Final = {
    Effect.READ: "reads",
    Effect.WRITE: "writes",
    Effect.SEND: "sends",
    Effect.DELETE: "deletions",
    Effect.PAY: "payments",
}
RISK_GROUPS: Final = {risk: f"{risk}-risk" for risk in Risk}
BULK_GROUP: Final = "bulk"

_HEAD: Final = """\
// An agent as registered; its name is its own claim.
entity Agent {
  name: String,
  owner: String,
  scopes: Set<String>,
  age_days: Long,     // whole days since it was registered
};
// Whatever the request names; also in context.resource, for `like`.
entity Resource;
type Request = {
  // Every scope of the request, and the one the action is performed under.
  scopes: Set<String>,
  performs: String,
  resource?: String,
  // Present only when the agent sent them and they are well-formed.
  recipients?: Long,
  amount?: Long,      // in the unit the agent's resource server uses
  currency?: String,
  count?: Long,
  amount_major?: decimal,   // in major units, if the service's file states its unit
  destinations?: Set<String>,   // hosts and mail domains
  // Names of those that were sent and cannot be relied on.
  unclear: Set<String>,
  // When it came in; weekday (1 Monday to 7), hour and minute by [policy] timezone.
  now: datetime,
  weekday: Long,
  hour: Long,
  minute: Long,
  // Where it came from, and the country of that, if they are known.
  source?: ipaddr,
  country?: String,
  // Whether the token in use was passed on by another agent, and how often.
  delegated: Bool,
  depth: Long,
};
"""


_NO_LIMITS: Final[Mapping[str, str]] = {}


def schema_text(
    catalogue: Catalogue, limits: Mapping[str, str] = _NO_LIMITS, *, alike: bool = False
) -> str:
    """Write the schema: each scope is an action, in groups by risk, effect and reach.

    A rule that names a scope the catalogue lacks, or a limit that is not among
    *limits*, which have the types of their numbers, then fails when it is loaded, and
    not by never matching. *alike* adds the attribute that no rule of a file may read;
    see `AlikeRules`.
    """
    groups = action_groups(catalogue)
    every = ", ".join(f'"{group}"' for group in groups)
    applies = "appliesTo { principal: Agent, resource: Resource, context: Request };"
    head = _HEAD
    if held := [
        f"    {name}: {{ count: {kind}, left: {kind} }},"
        for name, kind in sorted(limits.items())
    ]:
        # What the window of each limit holds before this request, and has left.
        whole = "\n".join(["  limits: {", *held, "  },", "};"])
        head = head.rpartition("};")[0] + whole + "\n"
    if alike:
        head = head.rpartition("};")[0] + "  alike: Set<String>,\n};\n"
    lines = [head, f"action {every};"]
    # Cedar refuses a rule on a group without members; this one is in all of them and,
    # having no colon, is never asked for.
    lines.append(f'action "nothing" in [{every}] {applies}')
    for scope in catalogue:
        member = ", ".join(
            f'"{g}"' for g, names in groups.items() if scope.name in names
        )
        lines.append(f'action "{scope.name}" in [{member}] {applies}')
    return "\n".join(lines) + "\n"


def action_groups(catalogue: Catalogue) -> dict[str, list[str]]:
    """Return the groups of actions a rule may name, with the scopes in each."""
    groups: dict[str, list[str]] = {
        group: []
        for group in (*EFFECT_GROUPS.values(), *RISK_GROUPS.values(), BULK_GROUP)
    }
    for scope in catalogue:
        groups[EFFECT_GROUPS[catalogue.effect(scope.name)]].append(scope.name)
        groups[RISK_GROUPS[scope.risk]].append(scope.name)
        if catalogue.is_bulk(scope.name):
            groups[BULK_GROUP].append(scope.name)
    return groups
