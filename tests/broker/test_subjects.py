"""Subjects of platforms' tokens: which may be registered, and which match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.broker.subjects import Subjects, check_subject, split_subject
from agentvault_tui.errors import UsageError
from agentvault_tui.model import AgentId

ONE, TWO = AgentId("agt_1"), AgentId("agt_2")


def matching(pattern: str, subject: str) -> bool:
    subjects = Subjects()
    subjects.add(pattern, ONE)
    return subjects.matching(subject) == [ONE]


@pytest.mark.parametrize(
    "subject",
    [
        "github:repo:acme/app:ref:refs/heads/main",
        "github:repo:acme/*:environment:prod",
        "github:repo:acme/app:ref:refs/heads/*",
        "k8s:system:serviceaccount:payments:agent",
        "k8s:system:serviceaccount:*:agent",
        "spire:spiffe://acme.test/ns/*/sa/*",
        "gitlab:project_path:acme/app:ref_type:branch:ref:main",
        "x:workload",
        "github:repo:acme/app:environment:my env",
    ],
)
def test_subjects_of_platforms_may_be_registered(subject: str) -> None:
    """As GitHub Actions, Kubernetes, SPIFFE and others write them, with ``*``."""
    check_subject(subject)
    assert matching(subject, subject.replace("*", "one"))


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "github",
        "github:",
        ":repo:acme/app",
        "git hub:repo:acme/app",
        "github:*",
        "github:*:acme/app",
        "github:repo:*/app:ref:refs/heads/main",
        "github:repo:*",
        "github:repo:ac*/app:ref:refs/heads/main",
        "github:repo:acme/app-*",
        "github:repo:acme/**",
        "k8s:*:serviceaccount:payments:agent",
        "k8s:system:*:payments:agent",
        "spire:spiffe://*/ns/a",
        "spire:*://acme.test/ns/a",
        "spire:spiffe:*/acme.test/ns/a",
        "spire:spiffe:///*",
        "spire:spiffe://acme.test:*/a",
        "x:*/y://z",
        "spire:spiffe://acme.test/ns//sa/a",
        "spire:spiffe://acme.test/ns/./sa",
        "spire:spiffe://acme.test/ns/../sa",
        "spire:spiffe://acme.test/ns/%2e%2e/sa",
        "spire:spiffe://acme.test/ns/a/",
        "spire:SPIFFE://acme.test/../sa",
        "spire:spiffe:///ns",
        "github:repo:acme/app:ref:refs/heads/m\u0430in",
        "github:repo:acme/app\n",
        "github: repo:acme/app",
        "github:repo:" + "a" * 500,
    ],
)
def test_subjects_that_let_strangers_in_are_refused(subject: str) -> None:
    """``*`` for who vouches or for a part of a segment, and what nobody can read."""
    with pytest.raises(UsageError):
        check_subject(subject)


def test_a_star_is_one_whole_segment() -> None:
    """It matches no ``/``, no ``:`` and nothing empty, and all else is exact."""
    pattern = "github:repo:acme/*:ref:refs/heads/main"
    assert matching(pattern, "github:repo:acme/app:ref:refs/heads/main")
    for subject in (
        "github:repo:acme/:ref:refs/heads/main",
        "github:repo:acme/a/b:ref:refs/heads/main",
        "github:repo:acme/a:b:ref:refs/heads/main",
        "github:repo:acme/app:ref:refs/heads/main2",
        "github:repo:acme/app:ref:refs/heads",
        "github:repo:acme/app:ref:refs/heads/main/x",
        "github:repo:acme:app/ref:refs/heads/main",
        "github:repo:Acme/app:ref:refs/heads/main",
        "github:repo:\u0430cme/app:ref:refs/heads/main",
        "github:repo:acme/\u0430pp:ref:refs/heads/main",
        "github:repo:acme/a\npp:ref:refs/heads/main",
        "github:repo:acme2/app:ref:refs/heads/main",
        "gitlab:repo:acme/app:ref:refs/heads/main",
        "github:repo:evil/acme/app:ref:refs/heads/main",
    ):
        assert not matching(pattern, subject), subject


@pytest.mark.parametrize("odd", ["", ".", "..", "%2e%2e", "%2E", "a%2fb"])
def test_a_spiffe_id_with_an_odd_segment_is_nobodys(odd: str) -> None:
    """A star stands for none of them (SPIFFE-ID section 2.2)."""
    assert matching(
        "spire:spiffe://acme.test/ns/*/sa", "spire:spiffe://acme.test/ns/a/sa"
    )
    assert not matching(
        "spire:spiffe://acme.test/ns/*/sa", f"spire:spiffe://acme.test/ns/{odd}/sa"
    )


def test_all_that_match_are_found() -> None:
    """The same subject may be of several, beside one with ``*``; one that was not
    registered after all is none's."""
    subjects = Subjects()
    subjects.add("k8s:system:serviceaccount:a:b", ONE)
    subjects.add("k8s:system:serviceaccount:a:b", TWO)
    assert subjects.matching("k8s:system:serviceaccount:a:b") == [ONE, TWO]
    subjects.add("k8s:system:serviceaccount:*:b", AgentId("agt_3"))
    assert len(subjects.matching("k8s:system:serviceaccount:a:b")) == 3
    subjects.discard("k8s:system:serviceaccount:a:b", ONE)
    assert subjects.matching("k8s:system:serviceaccount:a:b")[0] == TWO
    subjects.add("k8s:system:serviceaccount:a:b", TWO)  # again
    assert subjects.matching("k8s:system:serviceaccount:a:b").count(TWO) == 1


_SEGMENT = st.sampled_from(["a", "b", "*", ""])
_TAIL = st.lists(st.tuples(st.sampled_from("/:"), _SEGMENT), max_size=4)


def _text(tail: list[tuple[str, str]]) -> str:
    return "x:k:o" + "".join(between + segment for between, segment in tail)


@given(_TAIL, _TAIL, _TAIL)
def test_two_overlap_where_a_token_could_match_both(
    one: list[tuple[str, str]], two: list[tuple[str, str]], seen: list[tuple[str, str]]
) -> None:
    """Whatever token matches both of two subjects, registering the second finds the
    first, unless neither has ``*``; and a match is what the segments say."""
    left, right, shown = _text(one), _text(two), _text(seen)
    subjects = Subjects()
    subjects.add(left, ONE)

    def says(pattern: str) -> bool:
        shape, segments = split_subject(pattern)
        other, values = split_subject(shown)
        return shape == other and all(
            want == has or (want == "*" and has != "")
            for want, has in zip(segments, values, strict=True)
        )

    assert matching(left, shown) == says(left)
    if says(left) and says(right) and "*" in left + right:
        assert list(subjects.overlapping(right)) == [ONE]


def test_two_do_not_overlap_that_no_token_matches_both() -> None:
    """A `*` is no empty segment; the same subject twice is told by `client_id`."""
    subjects = Subjects()
    subjects.add("ci:repo:acme/*", ONE)
    subjects.add("ci:repo:acme/app", TWO)
    assert list(subjects.overlapping("ci:repo:acme/")) == []
    assert list(subjects.overlapping("ci:repo:acme/app")) == [ONE]
    assert {*subjects.overlapping("ci:repo:acme/*")} == {ONE, TWO}
