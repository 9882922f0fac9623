"""Other readings of a path: no wider route takes what is a narrower one's."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.gateway import Service, match, parse_target
from agentvault_tui.gateway.path_readings import path_readings

Parse = Callable[[str], Service]
NARROW = (
    ("/api/refund.php", "refund:payment"),
    ("/orders/{id}/refund", "refund:payment"),
    ("/orders/{id}/protected", "refund:payment"),
    ("/cgi-bin/{script}", "refund:payment"),
    ("/sites/pay.pl", "refund:payment"),
    ("/sites/{host}", "refund:payment"),
    ("/", "refund:payment"),
)
WIDE = ("/{rest*}", "write:contacts")


def scope_of(parse: Parse, path: str, *routes: tuple[str, str], head: str = "") -> str:
    """Return the scope of a request by a file with these routes; else nothing."""
    tables = (
        f'[[routes]]\nmethod = "POST"\npath = "{one}"\nscope = "{scope}"\n'
        for one, scope in routes
    )
    service = parse(head + "".join(tables))
    found = match(service, "POST", parse_target(path.encode()))
    return found.scope if found else ""


@pytest.mark.parametrize(
    "path",
    [
        *("/api/refund.php/x", "/api/refund.php/x.css", "/api/refund.php/x/y/z"),
        *("/API/Refund.PHP/x", "/api/refund%2Ephp/x".replace("%2E", ".")),
        *("/index.php/orders/7/refund", "/app_dev.php/orders/7/refund"),
        *("/main.php/orders/7/refund", "/orders/index.php/7/refund"),
        *("/(S(a1))/orders/7/refund", "/orders/7/(S(a1))/refund", "/index.php"),
        *("/(A(x)F(y))/orders/7/refund", "/orders/7/prot/(s(x))ected"),
        *("/(S(a1))/api/refund.php/x", "/%28S%28a1%29%29/orders/7/refund"),
        *("/cgi-bin/pay.cgi/x", "/cgi-bin/pay.aspx/x", "/sites/pay.pl/x"),
    ],
)
def test_no_wider_route_takes_another_path_of_a_script(parse: Parse, path: str) -> None:
    """PHP, CGI and ASP.NET run the narrower route's script for these paths."""
    assert scope_of(parse, path, *NARROW, WIDE) == ""
    unmatched = 'unmatched = "read:contacts"\n'
    assert scope_of(parse, path, *NARROW, head=unmatched) == ""
    assert scope_of(parse, path, WIDE) == "write:contacts"


@pytest.mark.parametrize(
    "path",
    [
        *("/sites/example.pl/x", "/files/a.php", "/a/index.php", "/v1.2/orders/7"),
        *("/other/refund.php/x", "/(x)/orders/7/refund", "/refund.php", "/a(s(x))/b"),
    ],
)
def test_a_path_that_no_server_reads_otherwise_has_its_own_route(
    parse: Parse, path: str
) -> None:
    """A name with an ending alone is none of a narrower route."""
    assert scope_of(parse, path, *NARROW, WIDE) == "write:contacts"


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/refund.php/x", "/api/refund.php/{rest*}"),
        ("/api/refund.php/x", "/api/{script}/x"),
        ("/index.php/orders/7/refund", "/index.php/{rest*}"),
    ],
)
def test_a_path_that_the_file_names_has_its_own_route(
    parse: Parse, path: str, route: str
) -> None:
    """A route with a literal there says which request of the script it is."""
    routes = (*NARROW, (route, "write:records"), WIDE)
    assert scope_of(parse, path, *routes) == "write:records"


def test_the_first_route_of_the_file_counts(parse: Parse) -> None:
    """A narrower route that comes after the wide one takes nothing from it."""
    first = (("/orders/{folder}/{id}/refund", "write:records"), *NARROW)
    assert scope_of(parse, "/orders/index.php/7/refund", *first) == "write:records"


ODATA = (
    ("/odata/Orders/{id}/S.refund", "refund:payment"),
    ("/odata/Orders/{id}/ship", "write:records"),
    ("/odata/Orders/{id}", "delete:records"),
    ("/odata/Pairs/{a}/{b}", "delete:records"),
    ("/files/report.json", "delete:records"),
)


@pytest.mark.parametrize(
    "path",
    [
        *("/odata/Orders(42)", "/odata/Orders(ID=42)", "/odata/Orders%2842%29"),
        *("/odata/Orders('42')", "/odata/Orders(%2042%20)", "/odata/orders(42)"),
        *("/odata/Orders(7)/S.refund", "/odata/Orders(7)/refund"),
        *("/odata/Orders/7/refund", "/odata/Orders(7)/refund()"),
        *("/odata/Orders(7)/ship", "/odata/Orders(7)/S.ship", "/odata/Orders/7/S.ship"),
        *("/odata/Pairs(a=1,b=2)", "/odata/Pairs('1','2')"),
        *("/odata/Orders%20(7)", "/odata/Orders%20(7)/refund"),
        *("/odata/Orders/7/$value", "/odata/Orders(7)/$count", "/odata/Orders/7/$REF"),
        *("/odata/Orders/7/S.refund/$value", "/odata/Orders/7/refund/$count/$value"),
    ],
)
def test_no_wider_route_takes_another_path_of_odata(parse: Parse, path: str) -> None:
    """A key in parentheses is a segment, and an action's namespace is optional."""
    assert scope_of(parse, path, *ODATA, WIDE) == ""
    unmatched = 'unmatched = "read:contacts"\n'
    assert scope_of(parse, path, *ODATA, head=unmatched) == ""
    named = (path.replace("%28", "(").replace("%29", ")"), "write:records")
    if "%" not in path:
        assert scope_of(parse, path, *ODATA, named, WIDE) == "write:records"


@pytest.mark.parametrize(
    "path", ["/files/json", "/odata/Items(42)", "/files/a(1).pdf", "/odata/x.y/7/z"]
)
def test_a_name_with_parentheses_or_a_dot_alone_is_no_other_path(
    parse: Parse, path: str
) -> None:
    """If no narrower route is meant, the wider one is."""
    assert scope_of(parse, path, *ODATA, WIDE) == "write:contacts"


SEGMENTS = ["a", "a.php", "index.php", "(s(x))", "b.pl", "c.aspx.", "d(1)", "e()", ""]


@given(st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=12))
def test_each_reading_is_another_path(path: list[str]) -> None:
    """A path that has no script, session or key has no other reading."""
    readings = list(path_readings(tuple(path), {}))
    plain = {"a", ""}.issuperset(path)
    assert not (plain and readings)
    for one in readings:
        assert one.path != tuple(path)
        assert all(0 <= place < len(path) for place in one.places | one.named)


def test_many_scripts_take_no_time() -> None:
    """An agent chooses how many segments a path has."""
    began = time.process_time()
    for path in (["a.php"] * 1_300, ["(s(x))"] * 1_000, ["(a(" * 2_000], ["." * 8_000]):
        assert len(list(path_readings(tuple(path), {}))) <= 26
    assert time.process_time() - began < 0.1
