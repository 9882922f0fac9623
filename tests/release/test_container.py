"""Containerfile and compose.yaml, as far as they can be run without containers."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command_line import PROGRAM, plain_environment, running
from support.needs import as_root, program
from support.patience import PATIENT
from support.postgres import Cluster, as_user, programs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """The instructions of the Containerfile."""
    text = (ROOT / "Containerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


def test_the_image_is_built_from_the_release_alone(
    steps: list[tuple[str, str]], release: Path, tmp_path: Path
) -> None:
    """It copies `dist`, checks the sums, and takes the lock from the sdist."""
    copied = [rest for key, rest in steps if key == "COPY" and "--from" not in rest]
    assert copied == ["dist /src"]
    assert (ROOT / ".dockerignore").read_text().split() == ["*", "!dist"]
    source = tmp_path / "src"
    shutil.copytree(release, source)
    first = next(rest for key, rest in steps if key == "RUN")
    line = [program("sh"), "-ec", first.replace("/src", str(source))]
    subprocess.run(line, check=True, capture_output=True)
    lock = (source / "runtime.txt").read_text()
    assert lock == (ROOT / "requirements/runtime.txt").read_text()
    (wheel,) = source.glob("*.whl")
    wheel.write_bytes(wheel.read_bytes() + b"\0")
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert wheel.name in done.stdout


def test_the_image_runs_without_privileges(steps: list[tuple[str, str]]) -> None:
    """On a base named by its digest, as a user of its own, with one volume."""
    (base,) = (rest for key, rest in steps if key == "ARG")
    assert re.fullmatch(r"BASE=[\w.:/-]+@sha256:[0-9a-f]{64}", base)
    assert {rest.split()[0] for key, rest in steps if key == "FROM"} == {"${BASE}"}
    assert [rest for key, rest in steps if key == "USER"] == ["10001:10001"]
    assert [rest for key, rest in steps if key == "VOLUME"] == ["/var/lib/agentvault"]
    health = next(rest for key, rest in steps if key == "HEALTHCHECK")
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    own = compose["services"]["broker"]["healthcheck"]["test"]
    assert json.loads(health.partition("CMD ")[2]) == own[1:]


@pytest.fixture
def places(short: Path) -> dict[str, str]:
    """Folders in place of the volumes."""
    for name in ("passwords", "socket"):
        (short / name).mkdir()
    short.chmod(0o711)
    return {
        "/run/postgresql": str(short / "socket"),
        "/passwords": str(short / "passwords"),
        "/tmp/prepare": str(short / "prepare"),  # noqa: S108 - of a container
    }


@pytest.fixture
def services() -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def server(
    services: dict[str, Any],
    places: dict[str, str],
    short: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Cluster]:
    """The service `postgres`, after its image's entry point made the roles."""
    folder = Path(places["/passwords"])
    uid = pwd.getpwnam("postgres").pw_uid
    uids = {"POSTGRES_UID": str(uid), "AGENTVAULT_UID": str(os.geteuid())}
    for _ in range(2):  # a second start keeps what is there
        subprocess.run(
            [program("sh"), ROOT / "deploy/make-passwords.sh", folder],
            env={**os.environ, **uids},
            check=True,
        )
    cluster = Cluster(Path(places["/run/postgresql"]))
    cluster.own()
    own = services["postgres"]["environment"]
    (short / "pwfile").write_text((folder / "superuser").read_text())
    (short / "pwfile").chmod(0o644)
    subprocess.run(
        as_user(
            *(programs() / "initdb", "-D", cluster.data, "-U", own["POSTGRES_USER"]),
            *(f"--pwfile={short / 'pwfile'}", "--no-sync"),
            *own["POSTGRES_INITDB_ARGS"].split(),
        ),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    monkeypatch.setenv("PGPASSWORD", (folder / "superuser").read_text())
    cluster.start()
    subprocess.run(
        as_user(program("sh"), ROOT / "deploy/make-roles.sh"),
        env={
            **os.environ,
            "PATH": f"{programs()}:{os.environ['PATH']}",
            "PGHOST": places["/run/postgresql"],
            "POSTGRES_USER": own["POSTGRES_USER"],
            "PASSWORDS": str(folder),
        },
        check=True,
        stdout=subprocess.DEVNULL,
    )
    monkeypatch.delenv("PGPASSWORD")
    yield cluster
    cluster.stop()


def environment_of(
    service: dict[str, Any], places: dict[str, str], **more: str
) -> dict[str, str]:
    """Return a service's environment, with folders in place of its volumes."""
    own = {}
    for name, value in service["environment"].items():
        for inside, outside in places.items():
            value = value.replace(inside, outside)  # noqa: PLW2901
        own[name] = value
    return plain_environment(**own, **more)


@as_root
@pytest.mark.usefixtures("server")
def test_the_services_of_compose_prepare_a_store_and_serve(
    services: dict[str, Any], places: dict[str, str], short: Path
) -> None:
    """Passwords, roles, `store prepare`, the team's key, a broker that is healthy."""
    for name in ("owner", "broker"):
        file = Path(places["/passwords"]) / name
        assert file.stat().st_mode & 0o777 == 0o600
    prepare, broker = services["prepare"], services["broker"]
    for _ in range(2):  # after an upgrade it runs again
        subprocess.run(
            [*PROGRAM, *prepare["command"]],
            env=environment_of(prepare, places),
            check=True,
            capture_output=True,
            timeout=PATIENT,
        )
    own = environment_of(broker, places, AGENTVAULT_HOME=str(short / "home"))
    key = [*PROGRAM, "team", "key", "new"]
    subprocess.run(key, env=own, check=True, capture_output=True, timeout=PATIENT)
    with running(["serve", "--listen", "127.0.0.1:0"], own, stderr=None) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["agents_url"]
        _, python, *words = broker["healthcheck"]["test"]
        assert python == "python3"
        line = [word.replace("http://127.0.0.1:7717", url) for word in words]
        subprocess.run([sys.executable, *line], env=own, check=True, timeout=PATIENT)
        status = subprocess.check_output([*PROGRAM, "status", "--json"], env=own)
        assert json.loads(status)["team"]["name"] == "agentvault"
        process.terminate()
        assert process.wait(PATIENT) == 0


def test_no_service_has_a_password_or_more_rights_than_it_needs(
    services: dict[str, Any],
) -> None:
    """PostgreSQL has no network; brokers have no capability and a read-only root."""
    for name, one in services.items():
        for variable, value in one.get("environment", {}).items():
            secret = "PASSWORD" in variable
            assert not secret or (variable.endswith("_FILE") and value[0] == "/"), name
    assert services["postgres"]["network_mode"] == "none"
    for name in ("prepare", "broker"):
        assert (services[name]["read_only"], services[name]["cap_drop"]) == (
            True,
            ["ALL"],
        )
    for name in ("passwords", "postgres", "prepare"):
        assert services[name]["network_mode"] == "none"
