"""What a rule reads and a request does not say clearly is never allowed by rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.policies import ALLOW_ALL, CATALOGUE, ENVIRONMENT, action, conditions

from agentvault_tui.errors import PolicyError
from agentvault_tui.model import Agent, Outcome
from agentvault_tui.policy import Policy
from agentvault_tui.policy.facts import LARGEST


def policy_of(*rules: str) -> Policy:
    """Return a policy that allows everything, with step-up rules of these bodies."""
    return Policy(
        ALLOW_ALL
        + "".join(
            f'@id("r{n}") @why("w") @obligation("step_up") permit {rule};\n'
            for n, rule in enumerate(rules)
        ),
        CATALOGUE,
    )


OVER_1000 = policy_of(
    "(principal, action, resource) when { context has amount && context.amount > 1000 }"
)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"amount": 5000},
        {"amount": 5000.0},
        {"amount": 1e6},
        {"amount": 500.0},
        {"amount": "5000"},
        {"amount": -5000},
        {"amount": float("inf")},
        {"amount": float("nan")},
        {"amount": True},
        {"amount": None},
        {"amount": [5000]},
        {"amount": LARGEST + 1},
        {"Amount": 5000},
        {"amount": 1, "AMOUNT": 5000},
        {"amount": 1, "\uff41mount": 5000},
        {"amount": 1, "payment": {"amount": 5000}},
    ],
)
@pytest.mark.parametrize("scope", ["send:payment", "write:records", "read:calendar"])
def test_an_amount_that_is_not_clear_is_held(
    agent: Agent, scope: str, parameters: Any
) -> None:
    """A policy with one rule about large amounts holds every amount it cannot read."""
    verdict = OVER_1000.decide(agent, action(scope, **parameters), ENVIRONMENT)
    assert verdict.outcome is Outcome.ESCALATED
    assert verdict.rule == "r0"
    if parameters.get("amount") != 5000:
        assert verdict.reason == "parameter_unclear"
        assert "amount" in verdict.why
        assert "amount must be a whole number" in verdict.message


def test_a_clear_amount_is_decided_by_the_rules(agent: Agent) -> None:
    """Nothing is held that the rules can read and allow."""
    asked = action("send:payment", amount=1000, currency="USD", note="x")
    assert OVER_1000.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ALLOWED


@pytest.mark.parametrize(
    "rule",
    [
        "(principal, action, resource) unless { context has count }",
        ("(principal, action, resource) unless {"
        " context has count && context.count < 9 }"),
        ("(principal, action, resource) when { false || context has count"
        " && context.count > 9 }"),
        "(principal, action, resource) when { !(context has count) }",
        ('(principal, action, resource) when { principal.owner == "nobody"'
        " && context has count && context.count > 9 }"),
        ("(principal, action, resource) when { if context has count then"
        " context.count > 9 else false }"),
    ],
)  # fmt: skip
def test_a_rule_reads_each_parameter_it_mentions(agent: Agent, rule: str) -> None:
    """``unless``, ``||``, negation or a branch make no difference."""
    verdict = policy_of(rule).decide(agent, action("write:records"), ENVIRONMENT)
    assert verdict.outcome is Outcome.ESCALATED


def test_an_allow_or_forbid_that_reads_what_is_unclear_holds_too(agent: Agent) -> None:
    """What an allow met by accident, or a forbid missed, goes to a person."""
    for rule in (
        (
            '@id("x") @why("w") @obligation("allow")'
            " permit (principal, action, resource)"
            " when { context has count && context.count < 5 };"
        ),
        (
            '@id("x") @why("w") forbid (principal, action, resource)'
            " when { context has count && context.count > 5 };"
        ),
    ):
        policy = Policy(ALLOW_ALL + rule, CATALOGUE)
        verdict = policy.decide(agent, action("read:files", count="6"), ENVIRONMENT)
        assert (verdict.outcome, verdict.rule) == (Outcome.ESCALATED, "x")


def test_unclear_requests_are_still_denied_where_rules_deny(agent: Agent) -> None:
    """A forbid that matches, and silence of every permit, deny what is unclear too."""
    policy = Policy(
        '@id("a") @why("w") @obligation("allow") permit'
        ' (principal, action in Action::"reads", resource)'
        " when { context has count && context.count < 5 };"
        '@id("f") @why("w") forbid (principal, action == Action::"read:files",'
        " resource);",
        CATALOGUE,
    )
    assert policy.decide(agent, action("read:files"), ENVIRONMENT).rule == "f"
    assert (
        policy.decide(agent, action("write:files"), ENVIRONMENT).rule == "default-deny"
    )
    assert (
        policy.decide(agent, action("read:email"), ENVIRONMENT).rule == "default-deny"
    )


def test_a_rule_whose_scope_leaves_the_request_out_reads_nothing(agent: Agent) -> None:
    """Another action, agent or resource in a rule's scope keeps it out of the way."""
    condition = "when { context has count && context.count > 5 }"
    policy = policy_of(
        f'(principal, action == Action::"write:records", resource) {condition}',
        f'(principal, action in Action::"payments", resource) {condition}',
        f'(principal == Agent::"agt_2", action, resource) {condition}',
        f'(principal, action in Action::"sends", resource) {condition}',
    )
    assert (
        policy.decide(agent, action("read:files"), ENVIRONMENT).outcome
        is Outcome.ALLOWED
    )
    assert (
        policy.decide(agent, action("write:files"), ENVIRONMENT).outcome
        is Outcome.ALLOWED
    )
    assert policy.decide(agent, action("write:records"), ENVIRONMENT).rule == "r0"
    assert policy.decide(agent, action("refund:payment"), ENVIRONMENT).rule == "r1"
    by_resource = policy_of(
        f'(principal, action, resource == Resource::"crm:1") {condition}'
    )
    other = action("read:files", resource="crm:2")
    assert by_resource.decide(agent, other, ENVIRONMENT).outcome is Outcome.ALLOWED
    for resource in ("crm:1", "CRM:1/", None):
        asked = action("read:files", resource=resource)
        assert (
            by_resource.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ESCALATED
        )


def test_each_of_several_scopes_is_read_for(agent: Agent) -> None:
    """One scope whose rule misses a parameter holds the whole request."""
    policy = policy_of(
        '(principal, action == Action::"write:records", resource)'
        " when { context has count && context.count > 100 }"
    )
    for scopes in (("read:files", "write:records"), ("write:records", "read:files")):
        assert (
            policy.decide(agent, action(*scopes), ENVIRONMENT).outcome
            is Outcome.ESCALATED
        )
        clear = action(*scopes, count=1)
        assert policy.decide(agent, clear, ENVIRONMENT).outcome is Outcome.ALLOWED


BOARD = [
    ('(principal, action, resource) when { context has resource'
    ' && context.resource == "calendar:board" }'),
    '(principal, action, resource == Resource::"calendar:board")',
    '(principal, action, resource) when { resource == Resource::"calendar:board" }',
    ('(principal, action, resource) when { context has resource'
    ' && ["calendar:board", "calendar:x"].contains(context.resource) }'),
    ('(principal, action, resource) when { context has resource'
    ' && context.resource like "calendar:board*" }'),
    '(principal, action, resource) when { resource in [Resource::"calendar:board"] }',
    ('(principal, action, resource) when { context has resource'
    ' && context.resource like "*:board" }'),
]  # fmt: skip


@pytest.mark.parametrize("rule", BOARD)
@pytest.mark.parametrize(
    "resource",
    [
        "calendar:board",
        "calendar:Board",
        "CALENDAR:BOARD",
        "calendar:board/",
        "calendar:/board",
        "calendar:%62oard",
        "calendar:%2562oard",
        "calendar:\uff42oard",
        "calendar:b\u043eard",
        "calendar:x/../board",
        "calendar:bo\u200bard",
        None,
        "",
    ],
)
def test_no_spelling_of_a_resource_evades_a_rule(
    agent: Agent, rule: str, resource: Any
) -> None:
    """Case, slashes, escapes, look-alikes, or naming none never get past a rule."""
    policy = policy_of(rule)
    asked = action("write:calendar", resource=resource)
    assert policy.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ESCALATED
    for other in ("calendar:me", "calendar:keyboards", "stripe:acct_1NhX2"):
        asked = action("write:calendar", resource=other)
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ALLOWED


@pytest.mark.parametrize(
    "rule",
    [
        'resource == Resource::"https://bank.example/acct/1"',
        'context has resource && context.resource like "https://bank.example/acct*"',
        'context has resource && context.resource like "*/acct/1"',
    ],
)
@pytest.mark.parametrize(
    "spelling",
    [
        "https://bank.example/acct/1",
        "https://bank.example:443/acct/1",
        "https://bank.example:/acct/1",
        "https://bank.example./acct/1",
        "https://me@bank.example/acct/1",
        "https://bank.example/acct/1#x",
        "https://bank.example/acct/1?",
        "https://bank.example/acct/1?x=1",
        "https://bank.example/acct/1;v=1",
        "https://bank.example/x/..;/acct/1",
    ],
)
def test_no_spelling_of_a_url_evades_a_rule(
    agent: Agent, rule: str, spelling: str
) -> None:
    """Nor what a server may leave aside: query, fragment, parameters, account, port."""
    policy = policy_of(f"(principal, action, resource) when {{ {rule} }}")
    asked = action("read:finance", resource=spelling)
    assert policy.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ESCALATED
    for other in ("https://bank.example/me?x=1", "https://bank.example:8443/me"):
        asked = action("read:finance", resource=other)
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ALLOWED


def test_a_rule_about_all_of_a_host_is_also_about_its_root(agent: Agent) -> None:
    """A URL without a path is that of the root (RFC 3986 section 6.2.3)."""
    policy = policy_of(
        "(principal, action, resource) when { context has resource"
        ' && context.resource like "https://bank.example/*" }'
    )
    for resource in ("https://bank.example", "https://bank.example?x=1"):
        asked = action("read:finance", resource=resource)
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ESCALATED


def test_a_query_that_a_rule_names_is_not_held_for_it(agent: Agent) -> None:
    """Of two rules, one about a URL and one about its query, each has its own."""
    policy = Policy(
        '@id("a") @why("w") @obligation("allow") permit (principal, action, resource)'
        ' when { context has resource && (context.resource == "https://a.example/x"'
        ' || context.resource == "https://a.example/x?id=1"'
        ' || context.resource like "https://b.example/x?id=*") };',
        CATALOGUE,
    )
    for resource in (
        "https://a.example/x",
        "https://a.example/x?id=1",
        "https://b.example/x?id=7",
    ):
        asked = action("read:finance", resource=resource)
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ALLOWED


@pytest.mark.parametrize("named", [True, False])
def test_a_rule_about_the_action_is_not_evaded_by_naming_none(
    agent: Agent, *, named: bool
) -> None:
    """Several scopes without an action may each be its scope, whichever is first."""
    policy = Policy(
        ALLOW_ALL + '@id("x") @why("w") forbid (principal, action, resource)'
        ' when { context.performs == "write:finance" };',
        CATALOGUE,
    )
    for scopes in (("read:files", "write:finance"), ("write:finance", "read:files")):
        asked = replace(action(*scopes), action="read:files", named=named)
        expected = Outcome.ALLOWED if named else Outcome.DENIED
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is expected


def test_an_allow_for_one_resource_is_for_its_exact_spelling(agent: Agent) -> None:
    """A mixed-case resource that a rule names is allowed; its variants are not."""
    policy = Policy(
        '@id("a") @why("w") @obligation("allow")'
        ' permit (principal, action, resource == Resource::"stripe:acct_1NhX2");'
        '@id("b") @why("w") @obligation("allow") permit (principal,'
        ' action in Action::"reads", resource) when { context has resource'
        ' && context.resource like "files:public/*" };',
        CATALOGUE,
    )

    def answer(scope: str, resource: str) -> Outcome:
        return policy.decide(
            agent, action(scope, resource=resource), ENVIRONMENT
        ).outcome

    assert answer("write:finance", "stripe:acct_1NhX2") is Outcome.ALLOWED
    assert answer("write:finance", "stripe:acct_1nhx2") is Outcome.DENIED
    assert answer("read:files", "files:public/a.txt") is Outcome.ALLOWED
    assert answer("read:files", "files:public/../secret") is Outcome.DENIED
    assert answer("read:files", "files:secret") is Outcome.DENIED


def test_a_resource_compared_with_the_owner_is_held_in_other_spellings(
    agent: Agent,
) -> None:
    """A rule about the agent's own mailbox is not evaded by capitals."""
    policy = policy_of(
        "(principal, action, resource) when { context has resource"
        " && context.resource == principal.owner }"
    )
    for resource in (agent.owner, agent.owner.upper()):
        asked = action("read:email", resource=resource)
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ESCALATED
    asked = action("read:email", resource="bob@acme.test")
    assert policy.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ALLOWED


def test_optional_waives_silence_and_nothing_else(agent: Agent) -> None:
    """A rule with ``@optional`` lets a request be silent, never be unclear."""
    policy = Policy(
        ALLOW_ALL + '@id("o") @why("w") @obligation("step_up") @optional("count")'
        " permit (principal, action, resource)"
        " when { context has count && context.count > 5 };",
        CATALOGUE,
    )
    assert (
        policy.decide(agent, action("read:files"), ENVIRONMENT).outcome
        is Outcome.ALLOWED
    )
    for count in (6, "6", 6.0, -1, None, [6]):
        asked = action("read:files", count=count)
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ESCALATED


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ('@obligation("allow") @optional("count")', "on a rule that allows"),
        ('@obligation("step_up") @optional("amount")', "amount, which the rule"),
        ('@obligation("step_up") @optional("")', "does not read"),
    ],
)
def test_optional_can_only_be_about_what_a_stricter_rule_reads(
    rule: str, says: str
) -> None:
    """``@optional`` on an allow, or of what is not read, is refused."""
    text = (
        f'@id("o") @why("w") {rule} permit (principal, action, resource)'
        " when { context has count && context.count > 5 };"
    )
    with pytest.raises(PolicyError, match=says):
        Policy(text, CATALOGUE)


ATOMS = {
    "recipients": ["context has recipients", "context.recipients > 3"],
    "amount": ["context has amount", "context.amount <= 7", "context.amount == 5"],
    "currency": ["context has currency", 'context.currency == "USD"'],
    "count": ["context has count", "-context.count > -5", "context.count + 1 < 9"],
    "resource": [
        "context has resource",
        'context.resource == "crm:1"',
        'context.resource like "crm:*"',
        'resource == Resource::"crm:1"',
    ],
}
CLEAR = ["true", 'principal.owner == "x"', 'action in Action::"reads"']


def _guarded(name: str, atom: str) -> str:
    if f"context.{name}" not in atom:
        return atom
    return f"(context has {name} && {atom})"


atoms = st.sampled_from(CLEAR) | st.sampled_from(
    [_guarded(name, atom) for name, group in ATOMS.items() for atom in group]
)
CONDITIONS = conditions(atoms, 5)
rules = st.lists(
    st.tuples(
        st.sampled_from(["allow", "step_up", "forbid"]),
        st.sampled_from(["when", "unless"]),
        CONDITIONS,
    ),
    min_size=1,
    max_size=3,
)
unclear_values = {
    "recipients": st.sampled_from([0, "3", [["a@x.test"]], 2.0, {"to": 1}, True, -1]),
    "amount": st.floats() | st.integers(max_value=-1) | st.text() | st.lists(st.none()),
    "currency": st.sampled_from(["usd", "US", 5, None, ["USD"], "\uff35SD"]),
    "count": st.floats() | st.booleans() | st.none() | st.text() | st.just(LARGEST + 1),
    "resource": st.sampled_from(["crm:x/../1", "crm:%2531", "crm:\u200b1"]),
}
given_clearly = {
    "recipients": 2,
    "amount": 5,
    "currency": "USD",
    "count": 4,
    "resource": "crm:1",
}


@pytest.mark.slow
@given(rules, st.sampled_from(sorted(ATOMS)), st.data())
def test_no_policy_allows_what_it_reads_and_cannot_read_clearly(
    agent: Agent, rules: Any, name: str, data: Any
) -> None:
    """Whatever the rules, an unclear or absent parameter that one reads is held."""
    text = ALLOW_ALL
    for number, (obligation, keyword, condition) in enumerate(rules):
        effect = "forbid" if obligation == "forbid" else "permit"
        note = "" if effect == "forbid" else f'@obligation("{obligation}")'
        text += (
            f'@id("g{number}") @why("w") {note} {effect} (principal, action, resource)'
            f" {keyword} {{ {condition} }};\n"
        )
    policy = Policy(text, CATALOGUE)
    parameters: dict[str, Any] = dict(given_clearly)
    match data.draw(st.sampled_from(["absent", "unclear", "twice", "nested"])):
        case "absent":
            del parameters[name]
        case "unclear":
            parameters[name] = data.draw(unclear_values[name])
        case "twice" if name != "resource":
            parameters[name.upper()] = parameters[name]
        case "nested" if name != "resource":
            parameters["inner"] = [{name: parameters[name]}]
        case _:
            del parameters[name]
    asked = action(
        "read:files", resource=parameters.pop("resource", None), **parameters
    )
    if any(name in condition for _, _, condition in rules):
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is not Outcome.ALLOWED


FOLDERS = ["file:/p/", "file:/p/a/", "file:/p/a/b/", "file:/", "file:/P/A/", "notes:a/"]
PATTERNS = ["*", "*/a/*", "file:/p/*", "file:/p/a*", "file:/p/a/b/c", "*.env", "x*"]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("clause", ["when", "unless"])
def test_a_folder_is_answered_as_strictly_as_anything_below_it(
    agent: Agent, folder: str, pattern: str, clause: str
) -> None:
    """A forbid by a pattern, positive or negative, is not passed by its folder."""
    rule = (
        '@id("r") @why("w") forbid (principal, action, resource) '
        f'{clause} {{ context has resource && context.resource like "{pattern}" }};'
    )
    policy = Policy(ALLOW_ALL + rule, CATALOGUE)

    def strictness(resource: str) -> int:
        asked = replace(action("read:files"), resource=resource)
        return policy.decide(agent, asked, ENVIRONMENT).outcome.strictness

    below = ("a", "a/x", "b/c", "a/b/c", "p/a/b/c", ".env", "a/.env", "x", "secrets/k")
    worst = max(strictness(folder + one) for one in below)
    answer = strictness(folder)
    assert answer >= min(worst, Outcome.ESCALATED.strictness)


def test_a_folder_that_rules_treat_alike_needs_no_person(agent: Agent) -> None:
    """A permit of all below it, and a forbid of another folder, decide alone."""
    policy = Policy(
        '@id("p") @why("w") @obligation("allow") permit (principal, action, resource)'
        ' when { context has resource && context.resource like "file:/p/*" };'
        '@id("f") @why("w") forbid (principal, action, resource)'
        ' when { context has resource && context.resource like "file:/p/secret/*" };',
        CATALOGUE,
    )
    for resource, outcome in (
        ("file:/p/src/", Outcome.ALLOWED),
        ("file:/p/", Outcome.ESCALATED),
        ("file:/p/secret/", Outcome.DENIED),
        ("file:/p/Secret/sub/", Outcome.DENIED),
        ("file:/q/", Outcome.DENIED),
    ):
        asked = replace(action("read:files"), resource=resource)
        assert policy.decide(agent, asked, ENVIRONMENT).outcome is outcome, resource


@pytest.mark.parametrize("resource", ["fs:srv/b", "fs:~/a", "FS:a", "fs:.a", "fs:-"])
@pytest.mark.parametrize(
    "condition",
    [
        'context.resource like "fs:/srv/*"',
        'context.resource == "fs:/srv/a"',
        '["fs:/srv/a", "x:y"].contains(context.resource)',
    ],
)
def test_a_relative_path_is_unclear_to_a_rule_about_absolute_ones(
    agent: Agent, resource: str, condition: str
) -> None:
    """It may be the one that the rule compares; no other resource is."""
    condition = f"context has resource && {condition}"
    rule = f"forbid (principal, action, resource) when {{ {condition} }};"
    policy = Policy(f'{ALLOW_ALL}@id("r") @why("w") {rule}', CATALOGUE)

    def outcome(name: str) -> Outcome:
        asked = replace(action("read:files"), resource=name)
        return policy.decide(agent, asked, ENVIRONMENT).outcome

    assert outcome(resource) is not Outcome.ALLOWED
    for other in ("fs:/usr/a", "repo:srv/a", "fs2:a", "https://fs/a"):
        assert outcome(other) is Outcome.ALLOWED


def test_a_rule_about_urls_makes_no_path_unclear(agent: Agent) -> None:
    """Two slashes begin a host."""
    condition = 'context has resource && context.resource like "git://a.test/*"'
    policy = policy_of(f"(principal, action, resource) when {{ {condition} }}")
    asked = replace(action("read:files"), resource="git:status")
    assert policy.decide(agent, asked, ENVIRONMENT).outcome is Outcome.ALLOWED
