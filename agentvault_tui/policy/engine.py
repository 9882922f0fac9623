"""The policy engine: evaluates Cedar over typed facts of a request."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable
from functools import lru_cache
from typing import Final, NamedTuple

import cedarpy

from agentvault_tui.errors import PolicyError
from agentvault_tui.model import Action, Agent, Outcome, Risk, Verdict
from agentvault_tui.policy.alike import AlikeRules
from agentvault_tui.policy.catalogue import Catalogue, action_groups, schema_text
from agentvault_tui.policy.classes import Distinguish, RequestClasses
from agentvault_tui.policy.explain import Decide, Explanation, would_change
from agentvault_tui.policy.facts import PARAMETERS
from agentvault_tui.policy.inputs import Environment, Inputs, Principal
from agentvault_tui.policy.limits import RULE, Limit, LimitSet
from agentvault_tui.policy.lint import PolicyProblem, first_misspelt, problems
from agentvault_tui.policy.reads import RuleReads, action_members
from agentvault_tui.policy.rules import (
    DEFAULT_DENY,
    POLICY_ERROR,
    UNREAD_DETAILS,
    Obligation,
    PolicyRule,
    parse_schema,
    position,
    read_rules,
)
from agentvault_tui.policy.ruling import UNCLEAR, Ruling, message, overruled
from agentvault_tui.policy.texts import FILES, PolicyTexts, shipped_policy
from agentvault_tui.text import visible

SHIPPED: Final = "shipped"
_ENGINE: Final = "9"
"""In every version: raised when the same texts come to be decided otherwise."""
_KEPT_ANSWERS: Final = 4096
_KEPT_AGENTS: Final = 1024
_KEPT_RESOURCE: Final = 256
"""Longer resources are decided again: an agent chooses them, and memory is ours."""

_ANSWERS: Final = {
    Obligation.ALLOW: (Outcome.ALLOWED, "granted"),
    Obligation.STEP_UP: (Outcome.ESCALATED, "stepup_required"),
    Obligation.DENY: (Outcome.DENIED, "policy_forbids"),
}


class ToldApart(NamedTuple):
    """The differences that a policy can see between requests for some scopes."""

    by_principal: bool
    """Next to the scopes that the agent was granted."""
    read: frozenset[str]
    """The names of the facts that are read."""
    classes: dict[str, list[Distinguish]]
    """For parameters, a function that maps values to one if all rules treat them
    alike."""


class Policy:
    """One policy over one catalogue, ready to decide; immutable once made."""

    def __init__(
        self,
        text: str,
        catalogue: Catalogue,
        source: str = "policy",
        seen: Hashable = None,
        texts: PolicyTexts = PolicyTexts(),  # noqa: B008 - immutable
        *,
        limits: LimitSet = LimitSet(),  # noqa: B008 - immutable
        strict: bool = True,
    ) -> None:
        """Parse and validate.

        Args:
            text: the rules.
            catalogue: the scopes they are about.
            source: the path of the policy's file, or ``shipped``.
            seen: stored as `seen`.
            texts: the texts of the files, if *text* is from files.
            limits: its limits, and the webhooks to call.
            strict: refuse misspelt names; else `problems` reports them.

        Raises:
            PolicyError: the text is not a policy this broker can put in effect.
        """
        types = {one.attribute: one.cedar_type for one in limits.limits}
        names = frozenset(types)
        written = schema_text(catalogue, types)
        self.limits: Final = limits
        self.text: Final = text
        self.source: Final = source
        """The path of the policy's file, or ``shipped``."""
        self.texts: Final = texts
        """The texts of the home's files, if it was read from them."""
        self.catalogue: Final = catalogue
        identity = (text, written, catalogue.version, limits.version)
        self.version: Final = _version(_ENGINE, *filter(None, identity))
        """Short hash over policy, schema, catalogue and limits."""
        self._schema = parse_schema(written)
        self._policies, self.rules = read_rules(text, source, self._schema, names)
        members = action_members(action_groups(catalogue))
        self._every_reader = readers = [
            RuleReads.of(r.id, r.optional, r.parsed, members) for r in self.rules
        ]
        self._readers = {
            scope.name: [r for r in readers if r.reads and scope.name in r.actions]
            for scope in catalogue
        }
        if strict:
            self._refuse_misspelt()
        # The actions of the schema, with their groups; each decision adds its agent.
        self._actions = cedarpy.Entities.from_json_str("[]", self._schema)
        self._alike = self._rules_of_folds(types)
        self.seen = seen
        """The stamps of the files when they were read, to notice a change."""
        self._entities = lru_cache(maxsize=_KEPT_AGENTS)(self._with_agent)
        self._classes = self._classes_by_scope()
        self._answers: OrderedDict[Hashable, Verdict] = OrderedDict()
        self._limits_read = lru_cache(maxsize=_KEPT_AGENTS)(self._find_limits_read)

    def _rules_of_folds(self, limits: dict[str, str]) -> AlikeRules:
        pairs = zip(self.rules, self._every_reader, strict=True)
        return AlikeRules(
            [(rule.parsed, reader.actions) for rule, reader in pairs],
            schema_text(self.catalogue, limits, alike=True),
        )

    def _classes_by_scope(self) -> dict[str, RequestClasses]:
        """Analyse the rules of each scope; scopes with the same rules share it."""
        classes: dict[tuple[int, ...], RequestClasses] = {}
        by_scope = {}
        for scope in self.catalogue:
            readers = enumerate(self._every_reader)
            applying = tuple(n for n, one in readers if scope.name in one.actions)
            if applying not in classes:
                parsed = [self.rules[number].parsed for number in applying]
                classes[applying] = RequestClasses.of(parsed)
            by_scope[scope.name] = classes[applying]
        return by_scope

    def read_by_rules(self, scopes: Iterable[str]) -> frozenset[str]:
        """Return the parameters and environment facts that rules for *scopes* read."""
        classes = [self._classes[name] for name in scopes if name in self._classes]
        return frozenset(name for one in classes for name, _ in one.attributes)

    def ids_of_readers(self) -> frozenset[str]:
        """Return the rules that read a parameter, the environment or the resource."""
        return frozenset(one.id for one in self._every_reader if one.reads_request)

    def told_apart(self, scopes: Collection[str]) -> ToldApart:
        """Return the facts, by name, that answers for *scopes* depend on."""
        read = {name.partition(".")[0] for name in self.read_by_rules(scopes)}
        classes: dict[str, list[Distinguish]] = {}
        for pair in (("amount", "amount_major"), ("recipients", "destinations")):
            if not read.isdisjoint(pair):  # one without the other is `Facts.hidden`
                read.update(pair)
                classes |= {name: [] for name in pair}
        by_scope = [self._classes[name] for name in scopes if name in self._classes]
        if any(not one.scopes.isdisjoint(scopes) for one in self.limits.limits):
            # A limit adds values up, for some agents: nothing is alike for it.
            read |= {"limits", "amount", "amount_major", "currency"}
            return ToldApart(True, frozenset(read), {})
        for name, distinguish in (pair for one in by_scope for pair in one.attributes):
            if name in PARAMETERS:
                classes.setdefault(name, []).append(distinguish)
        by_principal = any(one.by_principal for one in by_scope)
        return ToldApart(by_principal, frozenset(read), classes)

    def _refuse_misspelt(self) -> None:
        if problem := first_misspelt(self.rules, self.catalogue):
            raise PolicyError(
                f"{self.source} line {problem.line}: the rule {problem.rule}:"
                f" {problem.what}",
                "`agentvault policy check` lists all there is",
            )

    def problems(self, agents: Collection[str] | None = None) -> list[PolicyProblem]:
        """Return the parts of rules that cannot match, or not as they read.

        *agents* are the ids of the registered agents, if they are known.
        """
        return problems(self.rules, self._every_reader, self.catalogue, agents)

    @classmethod
    def of(
        cls,
        texts: PolicyTexts,
        sources: tuple[str, ...] = FILES,
        seen: Hashable = None,
        *,
        strict: bool = True,
    ) -> Policy:
        """Make a policy of *texts*; a missing text is the shipped one.

        Args:
            texts: the texts of the files.
            sources: the names of the texts in errors, in the order of `FILES`; for
                those left out their usual names.
            seen: stored as `seen`.
            strict: refuse misspelt names; else `problems` reports them.

        Raises:
            PolicyError: it cannot be put in effect, with line and reason.
        """
        sources = (*sources, *FILES[len(sources) :])
        policy_source, _, limits_source, _ = sources
        catalogue = texts.catalogue(sources)
        if texts.policy is None:
            text, policy_source = shipped_policy(), SHIPPED
        else:
            text = texts.policy
        limits = LimitSet()
        if texts.limits is not None:
            limits = LimitSet.parse(texts.limits, limits_source, catalogue)
        return cls(
            text, catalogue, policy_source, seen, texts, limits=limits, strict=strict
        )

    def decide(self, agent: Agent, action: Action, environment: Environment) -> Verdict:
        """Answer *action* for *agent*: the strictest answer of any of its scopes."""
        return self.answer(Inputs.of(agent, action, environment))

    def answer(self, inputs: Inputs) -> Verdict:
        """Answer a request; the same for equal inputs, whenever it is asked."""
        verdict = self._with_details(self._by_rules(inputs), inputs)
        if inputs.exempt or verdict.outcome is Outcome.DENIED:
            return verdict
        limited = self.limits.answer(inputs)
        if limited is None or limited.outcome.strictness <= verdict.outcome.strictness:
            return verdict
        limit = limited.limit
        return overruled(
            *(verdict, limited.outcome, limited.reason, limited.why),
            rule=f"{RULE}{limit.id}",
            by=f"limit {limit.id}",
            scopes=[name for name in inputs.requested if name in limit.scopes],
        )

    def limits_for(self, inputs: Inputs) -> tuple[Limit, ...]:
        """Return the limits that the answer to a request may depend on."""
        applying, read = (
            self.limits.applying(inputs),
            self._limits_read(inputs.requested),
        )
        if not read:
            return applying
        every = "" in read
        return tuple(
            one
            for one in self.limits.limits
            if every or one.attribute in read or one in applying
        )

    def _find_limits_read(self, scopes: tuple[str, ...]) -> frozenset[str]:
        """Return the names of the limits that rules read; an empty one for all."""
        paths = [name.split(".") for name in self.read_by_rules(scopes)]
        return frozenset(
            path[1] if path[1:] else "" for path in paths if path[0] == "limits"
        )

    def _with_details(self, verdict: Verdict, inputs: Inputs) -> Verdict:
        if verdict.outcome is not Outcome.ALLOWED:
            return verdict
        if inputs.unread:
            why = (
                "It carries authorization details of a type that policy does not read."
            )
            return verdict._replace(
                outcome=Outcome.ESCALATED,
                reason="stepup_required",
                rule=UNREAD_DETAILS,
                why=why,
                message=f"{why} A person has to decide: poll with auth_req_id.",
            )
        if inputs.backchannel:
            return verdict._replace(outcome=Outcome.ESCALATED)
        return verdict

    def _by_rules(self, inputs: Inputs) -> Verdict:
        who, request, resource = inputs.who, inputs.requested, inputs.facts.resource
        allowed = [
            name for name in request if name in who.scopes and name in self.catalogue
        ]
        classes = [self._classes[name] for name in allowed]
        key = (
            request,
            inputs.named,
            inputs.facts.same_as,
            who if len(allowed) < len(request) else None,
            *[one.key(inputs) for one in classes],
        )
        verdict = self._answers.get(key)
        if verdict is None:
            verdict = self._verdict(inputs)
            # The oldest give way; those an agent made large are not kept.
            large = resource is not None and len(resource) > _KEPT_RESOURCE
            if not (large or any(one.by_moment for one in classes)):
                self._answers[key] = verdict
                if len(self._answers) > _KEPT_ANSWERS:
                    self._answers.popitem(last=False)
        return verdict

    def _verdict(self, inputs: Inputs) -> Verdict:
        who, request = inputs.who, inputs.requested
        rulings = self.rulings(inputs)
        ruling = max(rulings, key=lambda one: one.outcome.strictness)
        entries = [scope for name in request if (scope := self.catalogue.get(name))]
        risk = max(
            (scope.risk for scope in entries), key=lambda r: r.rank, default=None
        )
        return Verdict(
            outcome=ruling.outcome,
            reason=ruling.reason,
            rule=ruling.rule,
            why=ruling.why,
            risk=Risk.HIGH if risk is None or len(entries) < len(request) else risk,
            message=message(who.scopes, ruling, rulings, inputs.facts),
            policy_version=self.version,
            escalating=tuple(
                one.scope for one in rulings if one.outcome is Outcome.ESCALATED
            ),
        )

    def rulings(self, inputs: Inputs) -> list[Ruling]:
        """Answer each scope of a request by itself.

        Where the request does not say under which its action is performed, that may
        be any of them: each is answered as if it were the one.

        A scope that was not granted, or is not in the catalogue, never reaches Cedar: a
        policy can narrow an operator's grant, and not widen it.
        """
        open_scopes = [
            name
            for name in inputs.requested
            if name in inputs.who.scopes and name in self.catalogue
        ]
        rulings = self._ask(inputs, open_scopes)
        answers = dict(zip(open_scopes, rulings, strict=True))
        return [
            answers.get(name)
            or Ruling(
                name,
                Outcome.DENIED,
                "scope_not_granted",
                DEFAULT_DENY,
                "The agent was not granted this scope.",
            )
            for name in inputs.requested
        ]

    def explain(self, decide: Decide, agent: Agent, action: Action) -> Explanation:
        """Explain the answer to *action*: its rule, and changes that would alter it.

        *decide* answers for an agent and an action, by this policy.
        """
        verdict = decide(agent, action)
        rule = self.rule(verdict.rule)
        return Explanation(
            verdict=verdict,
            source="" if rule is None else rule.source,
            line=None if rule is None else rule.line,
            would_change=would_change(decide, self.catalogue, agent, action),
        )

    def rule(self, rule_id: str) -> PolicyRule | None:
        """Return the rule with this ``@id``, if the policy has one."""
        return next((rule for rule in self.rules if rule.id == rule_id), None)

    def _ask(self, inputs: Inputs, scopes: list[str]) -> list[Ruling]:
        """Evaluate each scope by Cedar, with request and context type-checked."""
        if not scopes:
            return []
        who, request, facts = inputs.who, inputs.requested, inputs.facts
        context = facts.context() | inputs.environment.context()
        if self.limits.limits:
            held = inputs.environment.limits
            context["limits"] = {
                one.attribute: one.context(*held.get(one.attribute, (0, one.most)))
                for one in self.limits.limits
            }
        context["scopes"] = [name for name in request if name in self.catalogue]
        action = request[0] if request[0] in self.catalogue else ""
        requests = [
            {
                "principal": {"type": "Agent", "id": who.id},
                "action": {"type": "Action", "id": name},
                "resource": {"type": "Resource", "id": facts.resource or ""},
                "context": {**context, "performs": action if inputs.named else name},
            }
            for name in scopes
        ]
        entities = self._entities(who)
        results = cedarpy.is_authorized_batch(
            requests, self._policies, entities, self._schema
        )
        rulings = list(map(self._ruling, scopes, results))
        if rule_ids := self._alike.matching(inputs, scopes):
            # The evaluation on the fold can make an answer stricter, never milder.
            again = self._alike.ask(requests, rule_ids, entities)
            folded = map(self._ruling, scopes, again)
            rulings = [
                max(both, key=lambda one: one.outcome.strictness)
                for both in zip(rulings, folded, strict=True)
            ]
        return [self._clear(ruling, inputs) for ruling in rulings]

    def _clear(self, ruling: Ruling, inputs: Inputs) -> Ruling:
        """Escalate an allowed request if a rule reads something unclear in it.

        Such a rule's answer to a clear request is unknown: a forbid or a step-up may be
        missed, an allow met by accident. So a person decides, whatever the rules make
        of the gap.
        """
        if ruling.outcome is not Outcome.ALLOWED:
            return ruling
        for reader in self._readers[ruling.scope]:
            if names := reader.unclear(inputs):
                why = (
                    f"The request does not state {' and '.join(names)} clearly, which"
                    f" the rule {reader.id} reads."
                )
                outcome = Outcome.ESCALATED
                return Ruling(ruling.scope, outcome, UNCLEAR, reader.id, why, names)
        return ruling

    def _with_agent(self, who: Principal) -> cedarpy.Entities:
        attributes = {
            "name": str(visible(who.name)),
            "owner": str(visible(who.owner)),
            "scopes": [name for name in who.scopes if name in self.catalogue],
            "age_days": who.age_days,
        }
        uid = {"type": "Agent", "id": who.id}
        agent = {"uid": uid, "attrs": attributes, "parents": []}
        return self._actions.with_added_json_str(json.dumps([agent]))

    def _ruling(self, scope: str, result: cedarpy.AuthzResult) -> Ruling:
        """Convert Cedar's answer for one scope."""
        if result.diagnostics.errors or result.decision is cedarpy.Decision.NoDecision:
            # Cedar skips a rule that fails, also a forbid (an overflow is enough):
            # what that rule would have said is unknown, so the answer is no.
            why = "A rule of the policy failed on this request."
            return Ruling(scope, Outcome.DENIED, "policy_error", POLICY_ERROR, why)
        matched = [
            self.rules[index]
            for index in sorted(map(position, result.diagnostics.reasons))
        ]
        if not matched:
            why = "No rule of the policy permits it."
            return Ruling(scope, Outcome.DENIED, "policy_forbids", DEFAULT_DENY, why)
        # Of equally strict rules the first in the file is the one that is named.
        rule = max(matched, key=lambda one: _ANSWERS[one.obligation][0].strictness)
        outcome, reason = _ANSWERS[rule.obligation]
        return Ruling(scope, outcome, reason, rule.id, rule.why)


def _version(*texts: str) -> str:
    """Hash *texts* so that moving a boundary between them changes the hash."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:12]
