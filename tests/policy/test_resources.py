"""Resources: one canonical spelling, and what reads alike."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.policy.resources import SameAs, canonical, fold_pattern, reads_like


@pytest.mark.parametrize(
    ("sent", "form"),
    [
        ("stripe:acct_1NhX2", "stripe:acct_1NhX2"),
        ("Stripe:acct_1NhX2", "stripe:acct_1NhX2"),
        ("HTTPS://Api.Example.COM/V1", "https://api.example.com/V1"),
        ("calendar:%62oard", "calendar:board"),
        ("files:m%c3%bcll.txt", "files:m\u00fcll.txt"),
        ("files:mu\u0308ll.txt", "files:m\u00fcll.txt"),
        ("files:my report.pdf", "files:my report.pdf"),
        ("https://[::1]:8080/x", "https://[::1]:8080/x"),
        ("http://127.0.0.1:443/x?id=1", "http://127.0.0.1:443/x?id=1"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("file:///etc/hosts", "file:///etc/hosts"),
        ("contacts", "contacts"),
    ],
)
def test_spellings_of_one_resource_have_one_form(sent: str, form: str) -> None:
    """Scheme, host, needless escapes and composition make no second resource."""
    assert canonical(sent) == form


@pytest.mark.parametrize(
    "text",
    [
        "files:a%2Fb",
        "files:a%252Fb",
        "files:%2e%2e/secret",
        "files:a/../b",
        "files:./b",
        "files:a/..;/b",
        "files:a/..;x=1/b",
        "files:a/.../b",
        "files:a//b",
        "files:a\\b",
        "files:%ff",
        "files:50%",
        " files:a",
        "files:a\u00a0b",
        "files:a  b",
        "files:\u200bb",
        "files:\u202eb",
        "files:\x1bb",
        "files:b\n",
        "files:\ud800",
        "https://api.example:443/x",
        "http://api.example:80",
        "https://api.example:/x",
        "https://api.example:08443/x",
        "https://olga@api.example/x",
        "https://api.example./x",
        "https://api.example/x#y",
        "https://api.example/x?",
        "https://b\u00fccher.example/",
        "https://[0:0:0:0:0:0:0:1]/x",
        "https://127.1/x",
        "https://2130706433/x",
        "https://0x7f000001/x",
    ],
)
def test_what_programs_read_differently_has_no_form(text: str) -> None:
    """Escaped separators, dot segments, hidden characters and other spellings of a
    URL's host and port are not guessed at."""
    assert canonical(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("https:evil.test", "HTTPS:/evil.test:443/x", "https:@evil.test/x"),
        *("https:///evil.test", "https:/0x7f.1/x", "http:127.1", "ws:a", "ftp:/a/b"),
        *("https://", "https:///x", "wss://a:443/", "ftp://a:21/", "ws://a:80"),
        *("https://?a", "file://localhost/etc", "FILE://127.0.0.1/etc", "file:////etc"),
    ],
)
def test_a_url_without_its_two_slashes_and_host_has_no_form(text: str) -> None:
    """WHATWG's parser opens ``https:/evil.test`` as ``https://evil.test/``."""
    assert canonical(text) is None


@pytest.mark.parametrize("name", ["rec:42", "file:/a/b", "fs:/srv/", "docs", "a:b/c"])
@given(mark=st.sampled_from("?#"), rest=st.text("?#x=1/:.", max_size=8))
def test_a_mark_of_a_url_in_a_name_has_no_form_and_is_folded(
    name: str, mark: str, rest: str
) -> None:
    """A program that makes a URL of ``rec:42?x`` or ``rec:42#x`` reads ``rec:42``."""
    assert canonical(f"{name}{mark}{rest}") is None
    assert reads_like(f"{name}{mark}{rest}") == reads_like(name)
    escaped = f"%{ord(mark):02X}"
    assert reads_like(f"{name}{escaped}{rest}") == reads_like(name)


@pytest.mark.parametrize(
    "text",
    [
        *("rec:41,42", "rec:4*", "rec:*", "rec:41|42", "rec:41%2C42", "rec:4%2A"),
        *("rec:_all", "es:/_all/_search", "es:/public,secret/_search", "a,b", "_all"),
    ],
)
def test_several_names_in_one_have_no_form(text: str) -> None:
    """A search engine reads ``41,42``, ``4*`` and ``_all`` as lists with 42 in them."""
    assert canonical(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("https://a.example/x,1*", "file:/srv/a,b.csv", "file:/srv/*.py"),
        *("rec:x_all", "rec:_all_of", "es:/x_all/_search"),
    ],
)
def test_urls_and_files_may_have_commas_and_stars(text: str) -> None:
    """They name one page or file, or are a glob that a host's tool states."""
    assert canonical(text) == text


def test_the_query_of_a_web_url_is_in_its_fold() -> None:
    """Two pages that differ by their query are two; a fragment names the same page."""
    page = "https://a.example/x?id=1"
    assert canonical(page) == page
    assert reads_like(page) != reads_like("https://a.example/x?id=2")
    assert reads_like(f"{page}#top") == reads_like(reads_like(page)) == reads_like(page)
    assert reads_like("https://a.example/x?") == reads_like("https://a.example/x")


@given(
    st.sampled_from(["http", "HTTPS", "ws", "wss", "ftp"]),
    st.text("/:@", max_size=4),
    st.sampled_from(["evil.test", "EVIL.test", "me@evil.test"]),
    st.sampled_from(["", ":443", ":80", ":21", ":8443"]),
    st.sampled_from(["", "/x", "?a=1", "#a"]),
)
def test_each_form_of_a_url_begins_as_a_rule_about_its_host(
    scheme: str, slashes: str, host: str, port: str, rest: str
) -> None:
    """So that ``like "https://evil.test/*"`` and ``:8443/*`` cover what is opened."""
    form = canonical(f"{scheme}:{slashes}{host}{port}{rest}")
    begins = f"{scheme.lower()}://evil.test"
    assert form is None or form.removeprefix(begins)[:5] in {
        *("", "/x", "?a=1", ":8443", ":443", ":80", ":21"),
        *(":443/", ":443?", ":80/x", ":80?a", ":21/x", ":21?a"),
    }


@pytest.mark.parametrize("text", ["\u064b\u0650", "\ufdfa", "\u4e2d", "%EF%B7%BA"])
def test_a_long_resource_that_is_not_ascii_has_no_form_and_a_short_fold(
    text: str,
) -> None:
    """Unicode's forms of 8,400 such characters would keep the event loop 0.2 s."""
    long = "file:secrets/" + text * 513
    assert canonical(long) is None
    assert canonical("file:" + "\u4e2d" * 500) is not None
    assert reads_like(long).isascii()
    assert reads_like(long).startswith("file:secrets")


@pytest.mark.parametrize(
    "spelling",
    [
        "calendar:Board",
        "CALENDAR:BOARD",
        "calendar:board/",
        "/calendar:board",
        "calendar:/board",
        "calendar://board",
        "calendar:%42oard",
        "calendar:%2562oard",
        "calendar:x/../board",
        "calendar:./board",
        "calendar:bo\u200bard",
        "calendar:\uff42oard",
        "calendar:b\u043eard",
        "calendar:board ",
        "calendar\\board".replace("\\", ":\\"),
    ],
)
def test_evasive_spellings_read_like_the_resource(spelling: str) -> None:
    """Case, slashes, escapes, widths and look-alike letters fold away."""
    assert reads_like(spelling) == reads_like("calendar:board")


@pytest.mark.parametrize("rest", ["://evil.test/x", "://evil.test:8080", ":a", ""])
def test_a_url_reads_like_that_of_its_secure_scheme(rest: str) -> None:
    """Agent hosts, HSTS and redirects make one of the other; a rule is for both."""
    for scheme in ("http", "ws"):
        given, secure = f"{scheme}{rest}", f"{scheme}s{rest}"
        assert (reads_like(given) == reads_like(secure)) is bool(rest)
        assert reads_like(f"%{ord(scheme[0]):x}{given[1:]}") == reads_like(given)
        assert reads_like(reads_like(given)) == reads_like(given)
        if rest:
            assert fold_pattern((given, "")) == fold_pattern((secure, ""))
    assert reads_like("git:http:a") == "git:http:a"


@given(st.text(max_size=40) | st.text("aA:/%.2eEfF \\", max_size=12))
def test_a_canonical_form_is_its_own_form(text: str) -> None:
    """Making a form canonical again changes nothing, and it reads as it did."""
    form = canonical(text)
    if form is not None:
        assert canonical(form) == form
        assert reads_like(form) == reads_like(text)


SAME_AS = (".html", ".json", ".git")
NUMBERS = "42", "042", "+42", "42.0", "42.", "4_2", "0x2a", "0X2A", "4.2e1", "42e0"
NUMBERS += "420e-1", "0b101010", "0o52"


@given(st.text("0142_+-.:/ajbeox", max_size=24))
def test_the_fold_of_a_number_is_itself(text: str) -> None:
    """Numbers settle in one fold, next to dots, suffixes and slashes too."""
    fold = reads_like(f"acct:{text}.json", SAME_AS)
    assert reads_like(fold, SAME_AS) == fold


@pytest.mark.parametrize(
    ("spelling", "fold"),
    [
        *((f"acct:{one}", "acct:42") for one in ("42", "042", "0042", "+42", "42.0")),
        *((f"acct:{one}", "acct:42") for one in ("4_2", "42.json", "042.", "\u06642")),
        ("acct:000", "acct:0"),
        ("acct:042/items/+7", "acct:42/items/7"),
        ("acct:42a", "acct:42a"),
        ("acct:420e-2", "acct:420e-2"),
        ("acct:9007199254740993", "acct:9007199254740992"),
        ("acct:9007199254740991", "acct:9007199254740991"),
        ("acct:-42", "acct:-42"),
        ("acct:4.2", "acct:4.2"),
    ],
)
def test_spellings_of_a_whole_number_name_one_resource(
    spelling: str, fold: str
) -> None:
    """What Flask, Django and FastAPI convert to one number is one resource."""
    assert reads_like(spelling, SAME_AS) == fold


@pytest.mark.parametrize(
    ("pattern", "fold"),
    [
        (("acct:0042",), ("acct:42",)),
        (("acct:", "/042"), ("acct:", "/42")),
        (("acct:042/", ""), ("acct:42/", "")),
        (("acct:0", ""), ("acct:0", "")),
        (("", "042"), ("", "042")),
    ],
)
def test_a_part_of_a_number_in_a_pattern_stays(
    pattern: tuple[str, ...], fold: tuple[str, ...]
) -> None:
    """Only what stands between separators is a number; a wildcard goes on with it."""
    assert fold_pattern(pattern) == fold


@given(
    st.text(st.sampled_from("aA.:/%0125e_x+\\ -\u0455\u200b\uff05\u212a"), max_size=24)
)
def test_the_fold_of_a_fold_is_itself(text: str) -> None:
    """A fold that the ledger has counted by is folded again to the same."""
    for same_as in ((), SAME_AS):
        fold = reads_like(text, same_as)
        if canonical(text) is not None:
            assert reads_like(fold, same_as) == fold


@pytest.mark.parametrize(
    ("spelling", "fold"),
    [
        ("github:acme/Repo.git", "github:acme/repo"),
        ("github:acme/repo.git.json", "github:acme/repo"),
        ("github:acme/repo./", "github:acme/repo"),
        ("github:acme.git/repo", "github:acme/repo"),
        ("github:acme/.git", "github:acme/.git"),
        ("github:acme/repo.tar", "github:acme/repo.tar"),
        ("https://API.example/x.json", "https:api.example/x"),
        *((f"acct:{one}/pay", "acct:42/pay") for one in NUMBERS),
        ("acct:042.json", "acct:42"),
        ("acct:-0", "acct:0"),
        *((f"acct:{one}", f"acct:{one}") for one in ("42a", "4.2", "1.2.3", "x042")),
        ("acct:9e99", f"acct:{int(9e99)}"),
    ],
)
def test_endings_that_a_service_ignores_are_folded(spelling: str, fold: str) -> None:
    """A suffix of `same_as`, a dot, a slash, and digits of a number, change nothing."""
    assert reads_like(spelling, SAME_AS) == fold


def test_suffixes_are_found_by_what_a_resource_begins_with() -> None:
    """The suffixes of a service count for its resources alone, in any spelling."""
    same_as = SameAs()
    assert same_as.of("github:acme/repo.git") == ()
    same_as.put([(["github:", "GH:orgs/"], [".git", ".json"]), (["files:"], [])])
    assert same_as.of("GitHub:acme/repo") == (".json", ".git")
    assert same_as.of("gh:orgs/acme") == (".json", ".git")
    assert same_as.of("gh:users/ada") == same_as.of("files:a.json") == ()
    same_as.put([(["files:"], [".txt"])])
    assert same_as.of("github:acme/repo") == ()
    assert same_as.of("files:a.txt") == (".txt",)


UUID = "550e8400-e29b-41d4-a716-446655440000"
ZERO = "00000000-0000-0000-0000-000000000042"


@pytest.mark.parametrize(
    ("spelling", "uuid"),
    [
        *((one, UUID) for one in (UUID, UUID.upper(), UUID.replace("-", ""))),
        *((one, UUID) for one in (f"{{{UUID}}}", f"({UUID})", f"%7B{UUID}%7D")),
        *((one, UUID) for one in (f"urn:uuid:{UUID}", f"uuid:{UUID}", f"urn:{UUID}")),
        *((f"{UUID}{end}", UUID) for end in (".json", "/", ";v=1")),
        *((one, ZERO) for one in (ZERO.replace("-", ""), "0-0-0-0-42", "42")),
        ("5e-e29b-41d4-a716-1", "0000005e-e29b-41d4-a716-000000000001"),
        ("f0000005e-e29b-41d4-a716-1", "0000005e-e29b-41d4-a716-000000000001"),
        (f"f{UUID}", UUID),
        ("-".join(f"{one:0>16}" for one in UUID.split("-")), UUID),
    ],
)
def test_spellings_of_a_uuid_name_one_resource(spelling: str, uuid: str) -> None:
    """Python, PostgreSQL, .NET, Go and Java each read several of them as one UUID."""
    for begin in ("rec:", "rec:a/"):
        fold = reads_like(f"{begin}{spelling}", (".json",))
        assert fold == reads_like(f"{begin}{uuid}")
        assert reads_like(fold) == fold


@pytest.mark.parametrize(
    "name", ["2026-12-01-10-30", "1-2-3", "d41d8cd98f00b204", "a-b"]
)
def test_a_name_that_is_no_uuid_stays(name: str) -> None:
    """A time with hyphens, or fewer digits, is no UUID."""
    assert canonical(f"rec:{name}") == reads_like(f"rec:{name}") == f"rec:{name}"


@pytest.mark.parametrize(
    "name",
    [
        "550e-8400-e29b-41d4-a716-4466-5544-0000",
        "550e840-0e29b-41d4-a716-446655440000",
        "{550e8400e29b-41d4a716-446655440000}",
        "urn:uuid:550e8400-e29b41d4-a716446655440000",
        "55urn:0e8400-e29b-41d4-a716-446655440000",
        "+50e8400e29b41d4a716446655440000",
        "5_0e8400e29b41d4a71644665544000_",
        "0x0e8400e29b41d4a716446655440000",
        "{0x550e8400,0xe29b,0x41d4,{0xa7,0x16,0x44,0x66,0x55,0x44,0x00,0x00}}",
    ],
)
def test_a_uuid_with_marks_in_other_places_has_no_form(name: str) -> None:
    """Programs that count groups read another one than those that count digits."""
    assert canonical(f"rec:{name}") is None
    assert canonical(f"rec:{name.upper()}/x") is None


def test_a_pattern_of_uuids_matches_their_fold() -> None:
    """A prefix of the usual spelling is one of the fold."""
    begin = fold_pattern(("rec:550e8400-", ""))[0]
    assert reads_like("rec:550E8400E29B41D4A716446655440000").startswith(begin)


@pytest.mark.parametrize("unit", ["urn:", "uuid:", "0-", "{", "a", "0x0,", "1-2-3-4-5"])
def test_a_long_name_is_compared_in_linear_time(unit: str) -> None:
    """An agent chooses it, and others wait for the event loop."""
    text = "rec:" + unit * (8_000 // len(unit))
    began = time.process_time()
    canonical(text)
    reads_like(f"{text}/x")
    assert time.process_time() - began < 0.5
