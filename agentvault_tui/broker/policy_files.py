"""Read the home's text files, and write those of the policy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from agentvault_tui.errors import ConflictError, PolicyError, SettingsError
from agentvault_tui.home import Home, file_stamp, put_private
from agentvault_tui.policy import Policy, PolicyTexts
from agentvault_tui.policy.texts import pack_files, unpack_files
from agentvault_tui.trusted_files import read_trusted

MAX_FILE: Final = 256 * 1024
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""The permitted names of a file ``NAME.toml``, and of its service or secret."""
NAME_FORM: Final = "a name has lower-case letters, digits, - and _, and no more"
_Signature = tuple[tuple[int, ...] | None, ...]
"""The files' `stat`: cheap enough to read each second."""


def load_policy(
    home: Home,
    last: PolicyTexts = PolicyTexts(),  # noqa: B008 - immutable
    texts: PolicyTexts | None = None,
) -> Policy:
    """Read the home's files, or the shipped ones for those that are not there.

    Args:
        home: the home.
        last: the texts of the active policy: a missing file is a fault like a broken
            one, and brings no milder policy back.
        texts: the texts of the files, if they were read already.

    Raises:
        PolicyError: one of them cannot be put in effect, with line and reason.
    """
    # Taken first: a file that changes while it is read is read again.
    seen = signature(home)
    texts = read_texts(home) if texts is None else texts
    if gone := last.gone(texts):
        raise PolicyError(
            f"{' and '.join(gone)} was in force and is gone from {home.config}",
            "put it back, or return to the shipped one: agentvault policy reset",
        )
    return Policy.of(texts, _sources(home), seen)


def kept_policy(home: Home, texts: PolicyTexts) -> Policy:
    """Make a policy of earlier texts of *home*'s files."""
    return Policy.of(texts, _sources(home), signature(home))


def changed(policy: Policy, home: Home) -> bool:
    """Return, once for each change, whether the home's files differ from *policy*'s."""
    now = signature(home)
    if now == policy.seen:
        return False
    policy.seen = now
    return True


def read_texts(home: Home) -> PolicyTexts:
    """Read the files."""
    policy, scopes, limits = (read_text(path, home.config) for path in _files(home))
    return PolicyTexts(policy, scopes, limits, read_own_scopes(home))


def read_own_scopes(home: Home) -> str | None:
    """Read the files of ``scopes.d``, as `PolicyTexts.own_scopes` has them.

    Raises:
        PolicyError: the folder or a file cannot be read, or has a bad name; or they
            are too large together.
    """
    try:
        paths = _own_files(home)
    except OSError as error:
        raise PolicyError(
            f"{home.scopes_folder} cannot be read ({error.strerror})"
        ) from error
    texts: dict[str, str] = {}
    for path in paths:
        if NAME.fullmatch(path.stem) is None:
            raise PolicyError(f"{path} has a bad name", NAME_FORM)
        if (text := read_text(path, home.config)) is not None:
            texts[path.name] = text
    if sum(map(len, texts.values())) > MAX_FILE:
        raise PolicyError(
            f"the files of {home.scopes_folder} are larger than {MAX_FILE // 1024} KiB"
        )
    return pack_files(texts)


def _own_files(home: Home) -> list[Path]:
    """List the files of ``scopes.d``; OSError: the folder cannot be read."""
    try:
        paths = sorted(home.scopes_folder.iterdir())
    except FileNotFoundError:
        return []
    return [path for path in paths if path.suffix == ".toml" and path.name[0] != "."]


def read_text(path: Path, home: Path | None, most: int = MAX_FILE) -> str | None:
    """Read one file of the home; see `read_trusted`.

    Args:
        path: the file.
        home: the home's folder for settings; None for a file that a person named.
        most: bytes it may have.

    Returns:
        its text; None if there is no such file.

    Raises:
        PolicyError: it cannot be read, or others could have written it.
    """
    try:
        content = read_trusted(path, home, most + 1)
    except SettingsError as error:
        raise PolicyError(error.what, error.remedy) from error
    if content is None:
        return None
    if len(content) > most:
        raise PolicyError(f"{path} is larger than {most // 1024} KiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PolicyError(
            f"{path} line {line}: it is not UTF-8", "save the file as UTF-8"
        ) from error


def check_replaceable(home: Home) -> None:
    """Refuse to replace symbolic links: their targets would stay as they are.

    Raises:
        ConflictError: one of the home's files is one.
    """
    for path in (*_files(home), *_own_files(home)):
        if path.is_symlink():
            raise ConflictError(
                f"{path} is a symbolic link", "change the file that it points to"
            )


def write_texts(home: Home, texts: PolicyTexts) -> str | None:
    """Replace the home's files that differ from *texts*, each atomically.

    Returns:
        why one cannot be written, if that is so.
    """
    try:
        now = read_texts(home)
        for path, text, old in zip(_files(home), texts, now, strict=False):
            if text is not None and text != old:
                put_private(path, text.encode(), replace=True)
        old_scopes = unpack_files(now.own_scopes)
        own_scopes = unpack_files(texts.own_scopes)
        for name in old_scopes.keys() - own_scopes.keys():
            (home.scopes_folder / name).unlink()
        for name, text in own_scopes.items():
            if text != old_scopes.get(name):
                put_private(home.scopes_folder / name, text.encode(), replace=True)
    except (OSError, PolicyError) as error:
        return f"the policy that was applied is in force, and not in its file ({error})"
    return None


def _sources(home: Home) -> tuple[str, ...]:
    return *map(str, _files(home)), str(home.scopes_folder)


def _files(home: Home) -> tuple[Path, ...]:
    return home.policy_file, home.scopes_file, home.limits_file


def signature(home: Home) -> _Signature:
    """Return a value that changes if a file of *home* was changed since."""
    try:
        own = _own_files(home)
    except OSError:
        own = []
    return tuple(map(file_stamp, (*_files(home), home.scopes_folder, *own)))
