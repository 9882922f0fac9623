"""Paths of MCP servers' tools are resolved, or may be any path."""

from __future__ import annotations

import os
import time
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentvault_tui.errors import ServiceError
from agentvault_tui.gateway.tool_paths import (
    ANY,
    MOST_CHARACTERS,
    check_root,
    reached_path,
    resolve_path,
)

ROOT = "/srv/shared"


@pytest.mark.parametrize(
    ("stated", "path"),
    [
        ("secret/key", "/srv/shared/secret/key"),
        ("./secret/./key", "/srv/shared/secret/key"),
        (".", "/srv/shared"),
        ("sub/", "/srv/shared/sub/"),
        ("/srv/shared/./a", "/srv/shared/a"),
        ("/", "/"),
        ("/.", "/"),
        (".env", "/srv/shared/.env"),
        ("a:b/c", None),
        ("a/b:c", "/srv/shared/a/b:c"),
    ],
)
def test_a_path_is_resolved_from_the_root(stated: str, path: str | None) -> None:
    """A relative path and the absolute one are one resource."""
    assert resolve_path(stated, ROOT) == path
    if not stated.startswith("/"):
        assert resolve_path(stated, "") is None


@pytest.mark.parametrize(
    "stated",
    [
        *("", "~/key", "~root/key", "$HOME/key", "${HOME}/key", "%HOME%/key"),
        *("C:/key", "C:\\key", "\\\\host\\key", "file:///srv/key", "file:/srv/key"),
        *('"/srv/key"', "'/srv/key'", "/srv/key'", "`/srv/key`", " /srv/key"),
        *("/srv/key ", "/srv/key\n", "/srv/key\0", "../key", "/srv/a/../key"),
        *("/srv//key", "//host/key", "/srv/a%2f..%2fkey", "/srv/key\u200b"),
    ],
)
def test_a_path_that_servers_read_in_several_ways_may_be_any(stated: str) -> None:
    """They expand, trim or decode it: the call is about every path."""
    assert resolve_path(stated, ROOT) is None
    assert reached_path([stated], ROOT, recursive=False) == ANY
    assert reached_path(["/srv/shared/a", stated], ROOT, recursive=False) == ANY


@pytest.mark.parametrize(
    ("stated", "recursive", "path"),
    [
        (["/srv/a"], False, "/srv/a"),
        (["/srv/a"], True, "/srv/a/"),
        (["/"], True, "/"),
        (["/srv/a", "/srv/a"], False, "/srv/a"),
        (["/srv/a/x", "/srv/a/y/z"], False, "/srv/a/"),
        (["/srv/a", "/srv/a/y"], False, "/srv/a/"),
        (["/srv/ab", "/srv/a"], False, "/srv/"),
        (["/srv/shared/x", "y"], False, "/srv/shared/"),
        (["/srv/a", "/etc/b"], False, "/"),
        ([], False, "/"),
    ],
)
def test_several_paths_are_the_folder_that_has_all_of_them(
    stated: list[str], recursive: bool, path: str
) -> None:
    """So a rule about one of them counts, and so does a rule about a part of it."""
    assert reached_path(stated, ROOT, recursive=recursive) == path


NAMES = st.sampled_from(["a", "b", ".", "..", "", "~", "a b", " ", "é", "C:", '"'])
PATHS = st.builds(
    lambda lead, names: lead + "/".join(names),
    st.sampled_from(["", "/"]),
    st.lists(NAMES, min_size=1, max_size=5),
)


@given(st.lists(PATHS, min_size=1, max_size=3), st.booleans())
def test_every_path_is_the_one_that_is_decided_or_below_it(
    stated: list[str], recursive: bool
) -> None:
    """As the operating system reads each path from the root."""
    path = reached_path(stated, ROOT, recursive=recursive)
    for one in stated:
        there = os.path.normpath(PurePosixPath(ROOT) / one)
        assert f"{there}/".startswith(path) or there == path


@pytest.mark.parametrize(
    "root", ["srv", "/srv/", "/", "~/srv", "/srv/../x", "/srv/.", "//srv", "C:/srv"]
)
def test_a_root_is_an_absolute_path(root: str) -> None:
    """Any other folder would be resolved by its server alone."""
    check_root("")
    check_root(ROOT)
    with pytest.raises(ServiceError, match="root is"):
        check_root(root)


def test_the_longest_paths_of_a_call_do_not_hold_the_event_loop() -> None:
    """Their check takes a few milliseconds."""
    paths = ["/" + "\u00e9/" * 255] * (MOST_CHARACTERS // 511)
    began = time.process_time()
    reached_path(paths, ROOT, recursive=False)
    assert time.process_time() - began < 0.1
