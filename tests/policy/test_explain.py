"""What would change an answer, as it is really found out."""

from __future__ import annotations

from collections.abc import Callable

from support.policies import ENVIRONMENT

from agentvault_tui.model import Action, Agent, Outcome
from agentvault_tui.policy import Policy, shipped_catalogue
from agentvault_tui.policy.explain import Explanation


def explained(policy: Policy, agent: Agent, action: Action) -> Explanation:
    """Explain an answer, as `policy` gives it at one moment."""
    return policy.explain(
        lambda who, what: policy.decide(who, what, ENVIRONMENT), agent, action
    )


def changes(policy: Policy, agent: Agent, action: Action) -> str:
    return " ".join(explained(policy, agent, action).would_change)


def test_explain_shows_the_rule_as_it_is_written(
    shipped: Policy, agent: Agent, ask: Callable[..., Action]
) -> None:
    """The answer comes with its rule's own text and line."""
    found = explained(shipped, agent, ask("send:payment"))
    assert found.verdict == shipped.decide(agent, ask("send:payment"), ENVIRONMENT)
    assert found.source.startswith('@id("payments-need-step-up")')
    assert found.source.endswith(";")
    assert shipped.text.splitlines()[found.line - 1] in found.source


def test_explain_finds_the_number_at_which_the_answer_turns(
    shipped: Policy, agent: Agent, ask: Callable[..., Action]
) -> None:
    """Both ways: how few would be allowed, and how many would be escalated."""
    many = changes(shipped, agent, ask("send:email", recipients=500))
    assert "With recipients of at most 20, the answer would be allowed" in many
    few = changes(shipped, agent, ask("send:email", recipients=3))
    assert "With recipients of 21 or more, the answer would be escalated" in few
    bulk = changes(shipped, agent, ask("write:records", count=4000))
    assert "With count of at most 100, the answer would be allowed" in bulk


def test_explain_says_which_parameter_is_missing_or_unreadable(
    shipped: Policy, agent: Agent, ask: Callable[..., Action]
) -> None:
    """A missing count is named with the bound; an unreadable one with its mending."""
    missing = changes(shipped, agent, ask("send:email"))
    assert "recipients given as a whole number of at most 20" in missing
    contradicted = ask("send:email", recipients=1, bcc=["a@x.test", "b@x.test"])
    assert "at most 20" in changes(shipped, agent, contradicted)
    both = changes(shipped, agent, ask("write:files", count="x", amount=1.5))
    assert "With amount, count given so that it can be read" in both


def test_explain_tries_the_grant_and_each_scope_left_out(
    shipped: Policy, agent_with: Callable[..., Agent], ask: Callable[..., Action]
) -> None:
    """A denial names the grant it lacks; several scopes name the one in the way."""
    agent = agent_with("read:calendar")
    denied = explained(shipped, agent, ask("read:calendar", "delete:records"))
    assert denied.verdict.outcome is Outcome.DENIED
    assert (denied.source, denied.line) == ("", None)
    told = " ".join(denied.would_change)
    assert "With delete:records granted, the answer would be escalated" in told
    assert "Without delete:records in the request, the answer would be allowed" in told


def test_explain_says_so_when_only_the_policy_can_change_it(
    shipped: Policy, agent: Agent, ask: Callable[..., Action]
) -> None:
    """A payment is escalated whatever is sent."""
    assert "only the policy" in changes(shipped, agent, ask("send:payment"))


def test_explain_tries_without_the_resource(
    agent: Agent, ask: Callable[..., Action]
) -> None:
    """A rule about a resource is found to be about it; none named needs a person."""
    policy = Policy(
        '@id("a") @why("w") @obligation("allow") permit (principal, action, resource);'
        '@id("f") @why("w") forbid (principal, action, resource == Resource::"r");',
        shipped_catalogue(),
    )
    told = changes(policy, agent, ask("read:files", resource="r"))
    assert told == "Without a resource, the answer would be escalated (rule f)."


def test_explain_says_what_to_state(agent: Agent, ask: Callable[..., Action]) -> None:
    """Of a request held because it is unclear, what would make it clear is told."""
    rule = (
        '@id("a") @why("w") @obligation("allow") permit (principal, action, resource);'
        '@id("s") @why("w") @obligation("step_up") permit (principal, action, resource)'
        " when {{ context has {0} && context.{0} {1} }};"
    )
    for name, compared, said in (
        ("amount", "> 1000", "With amount given as a whole number of at most 1000"),
        ("currency", '== "EUR"', "With currency given, such as USD"),
        ("resource", '== "crm:1"', "With another resource named"),
    ):
        policy = Policy(rule.format(name, compared), shipped_catalogue())
        told = changes(policy, agent, ask("write:files", Resource=1))
        assert said in told, told


def test_explain_survives_hostile_requests(
    shipped: Policy, agent_with: Callable[..., Agent], ask: Callable[..., Action]
) -> None:
    """Whatever is asked about, the sentences are displayable."""
    agent = agent_with("\x1b[2J", "read:files")
    action = ask(
        "\x1b[2J", "read:files", "\u202e", resource="\ud800", count=float("nan")
    )
    for sentence in explained(shipped, agent, action).would_change:
        assert sentence.isprintable()
