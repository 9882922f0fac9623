"""Files that make programs run later are found by their names."""

from __future__ import annotations

import pytest

from agentvault_tui.cli.hook_configuring import FILES, FOLDERS, names_configuration


def words(text: str) -> list[str]:
    return text.split()


BY_PATTERN = words(
    """
    x.code-workspace x.sublime-project src/x.pth
    .python-version .ruby-version .node-version .java-version .perl-version .go-version
    .terraform-version .bun-version .python-versions .swift-version .crystal-version
    .bashrc.local .zshrc.mine .profile.local .zshenv.local .tmux.conf.local .shrc.x
    mise.toml .mise.toml mise.local.toml .mise.local.toml mise.prod.toml .mise.ci.toml
    mise/config.toml mise/config.prod.toml mise/conf.d/x.toml .config/mise.toml
    lefthook.yml lefthook.json .lefthook.yaml lefthook-local.yml .lefthook-local.toml
    aqua.yaml .aqua.yml pkgx.yaml .pkgx.yml
    .lintstagedrc .lintstagedrc.json lint-staged.config.mjs
    simple-git-hooks.cjs .simple-git-hooks.json
    .github/copilot-instructions.md .github/hooks/x.json .github/lsp.json
    .github/agents/x.agent.md .github/skills/x .github/plugin/x
    .config/nvim/lua/x.lua .config/fish/config.fish .config/git/config
    .config/hg/hgrc .config/jj/config.toml .config/systemd/user/x .config/autostart/x
    .config/environment.d/x.conf .config/zed/tasks.json .config/lesskey
    nvim/init.lua .config/nvim/init.lua wezterm/init.lua init.lua
    HEAD deep/HEAD deep/head
    """
)
SPELLINGS = [
    *(".GIT/config", ".Claude/settings.json", ".ｇit/x", ".gi\u200ct/x", "GIT~1/x"),
    *(".git./config", ".CURSOR/hooks.json", ".ENVRC", ".HG/hgrc", ".ENV", ".Rprofile"),
    *(".git::$INDEX_ALLOCATION/config", ".GITMODULES::$DATA", ".Python-Version"),
]
OTHERS = words(
    """
    src/a.py src/hooks/use.ts .github/workflows/x.yml .gitignore git/x head.html
    agents/x src/HEAD.md config/mise/x mise/x.toml version .version python-version
    src/init.lua lua/plugin/init.lua .env.example .editorconfig Makefile package.json
    AGENTS.md CLAUDE.md .dockerignore .prettierrc .eslintrc.json profile.py x.pthx
    src/emacs vim.md .config/app/settings.json docs/run/x tmux.conf.md .config
    """
)


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_file_of_the_list_configures(name: str) -> None:
    """At the top, in a folder, and in capitals; a longer name is another file."""
    for path in (name, f"/p/{name}", f"/p/deep/{name}", f"/p/{name.upper()}"):
        assert names_configuration(path)
    assert not names_configuration(f"/p/x{name}")
    assert not names_configuration(f"/p/{name.removeprefix('.')}/x.py")


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_everything_in_a_folder_of_the_list_configures(name: str) -> None:
    """And the folder itself, which may be exchanged for another."""
    for path in (
        name,
        f"/p/{name}",
        f"/p/deep/{name}/x",
        f"/p/{name.upper()}/a/b.json",
    ):
        assert names_configuration(path)
    assert not names_configuration(f"/p/x{name}/a")


@pytest.mark.parametrize("path", [*BY_PATTERN, *SPELLINGS])
def test_a_file_of_a_pattern_configures(path: str) -> None:
    """In every spelling that a file system takes for it."""
    assert names_configuration(path)
    assert names_configuration(f"/p/{path}", ["/p"])


@pytest.mark.parametrize("path", OTHERS)
def test_other_files_do_not_configure(path: str) -> None:
    """A file that makes nothing run is a file like any other."""
    assert not names_configuration(f"/p/{path}", ["/p"])


def test_a_working_copy_below_claude_is_a_folder_like_any_other() -> None:
    """Its own settings are not."""
    assert not names_configuration("/p/.claude/worktrees/a/src/x.py")
    assert names_configuration("/p/.claude/worktrees/a/.claude/x")
    assert names_configuration("/p/.claude/worktrees/.x")
