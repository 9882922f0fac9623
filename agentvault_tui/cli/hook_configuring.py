"""Names of files that make a host, git, an editor or a shell run programs later.

By name alone, in any folder: a checkout may be linked from a home directory.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from itertools import pairwise
from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FOLDERS: Final = _words(
    # Agent hosts and editors
    ".agents .amazonq .augment .claude .claude-plugin .cline .codex .continue .copilot "
    ".crush .cursor .devcontainer .emacs.d .doom.d .externaltoolbuilders .factory "
    ".fleet .gemini .goose .helix .idea .junie .kilocode .kiro .opencode .qwen .roo "
    ".run .spacemacs.d .trae .vim .vscode .windsurf .zed "
    # Version control, and what runs with it
    ".direnv .git .githooks .hg .husky .jj .lefthook .shadowenv.d "
    # Shells, desktops, package and version managers
    ".asdf .bashrc.d .cargo .flox .hammerspoon .mise .oh-my-zsh .ssh .yarn .zshrc.d"
)
"""Folders in which every file counts."""
FILES: Final = _words(
    # Agent hosts: settings, and lists of MCP servers, hooks and language servers
    ".aider.conf.yaml .aider.conf.yml .claude.json .continuerc.json .crush.json "
    ".lsp.json .mcp.json .opencode.json crush.json gemini-extension.json hooks.json "
    "mcp-config.json mcp.json opencode.json opencode.jsonc "
    # Shells and terminals
    ".bash_aliases .bash_completion .bash_login .bash_logout .bash_profile .bashrc "
    ".cshrc .editrc .inputrc .kshrc .login .logout .mkshrc .profile .screenrc .shrc "
    ".tcshrc .tmux.conf .wezterm.lua .yashrc .zlogin .zlogout .zprofile .zshenv .zshrc "
    # Folders' own environments
    ".autoenv .autoenv.zsh .autoenv_leave.zsh .env .envrc devbox.json "
    # Editors and pagers
    ".dir-locals-2.el .dir-locals.el .emacs .emacs.el .exrc .gvimrc .ideavimrc "
    ".lessfilter .lesskey .local.vimrc .lvimrc .nanorc .nvim.lua .nvimrc .project "
    ".spacemacs .vimrc .vimspector.json init.el init.vim "
    # Debuggers, interpreters and database clients
    ".byebugrc .duckdbrc .erlang .gdbearlyinit .gdbinit .ghci .guile .iex.exs .irbrc "
    ".lldbinit .mongorc.js .mongoshrc.js .my.cnf .ocamlinit .pdbrc .pdbrc.py .perldb "
    ".pryrc .psqlrc .psysh.php .pythonrc.py .pythonstartup .radare2rc .rdbgrc "
    ".renviron .rprofile .sbclrc .sqliterc pyvenv.cfg sitecustomize.py "
    "usercustomize.py "
    # Version control
    ".gitattributes .gitconfig .gitmodules .hgrc .jjconfig.toml .overcommit.yml "
    ".pre-commit-config.yaml .pre-commit-config.yml head "
    # Package and version managers
    ".bazelversion .npmrc .nvmrc .pnpmfile.cjs .prototools .rtx.toml .sdkmanrc "
    ".tool-versions .vfox.toml .yarnrc .yarnrc.yml global.json rust-toolchain "
    "rust-toolchain.toml "
    # Mail, downloads and desktops
    ".curlrc .forward .mailcap .mailrc .muttrc .pam_environment .procmailrc .wgetrc "
    ".xinitrc .xprofile .xserverrc .xsession .xsessionrc"
)
"""With ``head``, without which git takes no folder for a bare repository, whose
``config`` names programs (gitrepository-layout(5)), and ``.env``, which Gemini CLI
loads into its environment: its settings' place and ``NODE_OPTIONS`` can stand there."""
_ENDS: Final = re.compile(
    r".+\.(?:code-workspace|sublime-project|pth)"
    r"|\.[a-z]+-versions?"  # .python-version and the like: of version managers
    r"|\.(?:[a-z]{0,4}shrc|profile|bash_profile|zshenv|zprofile|tmux\.conf)\..+"
    r"|\.?(?:mise|lefthook)(?:[.-].+)?\.(?:ya?ml|toml|json)"
    r"|\.?(?:aqua|pkgx)\.ya?ml"
    r"|\.lintstagedrc(?:\..+)?|lint-staged\.config\..+"
    r"|\.?simple-git-hooks\.(?:[cm]?js|json)"
)
_OF_CONFIG: Final = _words(
    "alacritty autostart awesome bspwm crush direnv emacs environment.d fish git goose "
    "helix hg hypr i3 jj kitty lazygit lesskey mise nushell nvim opencode powershell "
    "sway sxhkd systemd tmux wezterm yazi zed zellij zsh"
)
"""Folders and files below ``.config``."""
_OF_GITHUB: Final = re.compile(r"copilot.*|agents|hooks|lsp\.json|plugin|skills")
"""Below ``.github``: files from which Copilot takes programs."""
_OF_MISE: Final = re.compile(r"config(?:\..+)?\.toml|conf\.d")
_EDITORS: Final = _words("awesome hammerspoon lite-xl neovim nvim wezterm")
"""Folders whose ``init.lua`` is a start-up file: elsewhere it is a module of Lua."""
_WORKTREE: Final = re.compile(r"/\.claude/worktrees/(?=[^/.])")
"""The folder for Claude Code's working copies of a repository."""


def names_configuration(path: str, tops: Collection[str] = ()) -> bool:
    """Check whether a component of *path* is the name of a configuring file or folder.

    Components are compared as lenient file systems do: without case, invisible
    characters and closing dots, and by the short names and streams of NTFS.

    Args:
        path: absolute, or a text that a host may read as one.
        tops: the project's folders, which may be the configuration of an editor.
    """
    parts = _WORKTREE.sub("/", path).split("/")
    names = [_folded(part.partition(":")[0]) for part in parts]
    last = names[-1]
    above = names[-2] if len(names) > 1 else ""
    at_top = "/".join(parts[:-1]) in {"", *tops}
    return (
        any(name in FOLDERS or name.startswith("git~") for name in names)
        or last in FILES
        or _ENDS.fullmatch(last) is not None
        or (last == "init.lua" and (at_top or above in _EDITORS))
        or any(
            (one == ".config" and below in _OF_CONFIG)
            or (one == ".github" and _OF_GITHUB.fullmatch(below))
            or (one == "mise" and _OF_MISE.fullmatch(below))
            for one, below in pairwise(names)
        )
    )


def _folded(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold()
    shown = (c for c in plain if unicodedata.category(c) not in {"Cf", "Cc"})
    return "".join(shown).rstrip(". ")
