"""The files of ``deploy/study``: what they name exists, and the programs that they start work together."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import grimp
import httpx
import pytest
import yaml
from packaging.utils import canonicalize_name

from benchmarks.study_servers import free_port
from seedpo.study.web.serving import make_links
from tests.architecture.pins import pins
from tests.study.postgres_server import PASSWORD, Server
from tests.study.small_study import pairs_of, small_study

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy" / "study"
STUDY = "study.example.org"
SETTINGS = {"STUDY_NAME": STUDY, "STUDY_FOLDER": "/srv/study", "DATABASE_PASSWORD": "secret-word"}


def filled(text: str, settings: dict[str, str]) -> str:
    """The text with ``${NAME:?message}`` and ``${NAME:-default}`` as compose replaces them."""

    def value(match: re.Match[str]) -> str:
        name, sign, rest = match[1], match[2], match[3] or ""
        if sign == ":?":
            return settings[name]
        return settings.get(name) or rest

    return re.sub(r"\$\{(\w+)(:\?|:-)?([^}]*)\}", value, text)


def services(settings: dict[str, str]) -> dict[str, Any]:
    content = yaml.safe_load(filled((DEPLOY / "compose.yaml").read_text("utf-8"), settings))
    assert set(content) == {"services", "networks", "volumes"}
    return dict(content["services"])


def example() -> dict[str, str]:
    lines = (DEPLOY / ".env.example").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_example_names_every_setting_and_no_password() -> None:
    named = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text("utf-8")))
    assert set(example()) == named
    assert example()["DATABASE_PASSWORD"] == ""
    assert ".env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_only_the_proxy_is_reached_from_outside() -> None:
    content = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    assert content["networks"]["inside"]["internal"] is True
    assert [name for name, service in content["services"].items() if "ports" in service] == ["proxy"]
    outside = [name for name, service in content["services"].items() if "outside" in service["networks"]]
    assert outside == ["proxy"]


def test_the_application_may_write_only_its_study() -> None:
    application = services(SETTINGS)["application"]
    assert application["read_only"] is True
    assert application["cap_drop"] == ["ALL"]
    assert application["user"] == "1000:1000"
    assert application["volumes"] == ["/srv/study:/study"]
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    assert lines.index("USER seedpo") < next(row for row, line in enumerate(lines) if line.startswith("ENTRYPOINT"))


def test_the_password_is_in_no_command() -> None:
    for service in services(SETTINGS).values():
        assert SETTINGS["DATABASE_PASSWORD"] not in str(service.get("command", "")) + str(service.get("healthcheck"))


def test_the_image_copies_files_that_exist_and_are_sent() -> None:
    lines = (DEPLOY / "Dockerfile").read_text("utf-8").splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert copied
    assert all((ROOT / name).exists() and f"!{name}" in ignored for name in copied)


def requirements() -> set[str]:
    lines = (DEPLOY / "requirements.txt").read_text("utf-8").splitlines()
    return {canonicalize_name(line.partition("[")[0]) for line in lines if line and not line.startswith("#")}


def test_the_image_installs_what_the_application_imports() -> None:
    graph = grimp.build_graph("seedpo", include_external_packages=True)
    upstream = graph.find_upstream_modules("seedpo.study", as_package=True)
    outside = {name for name in upstream if name.partition(".")[0] not in {"seedpo", *sys.stdlib_module_names}}
    by_module = packages_distributions()
    imported = {canonicalize_name(by_module[name][0]) for name in outside}
    # The command line needs typer; the database's driver is named in a URL.
    assert requirements() == imported | {"typer", "psycopg"}
    assert requirements() <= {canonicalize_name(name) for name in pins()}


@pytest.mark.skipif(shutil.which("caddy") is None, reason="Caddy is not installed here")
def test_caddy_takes_its_file() -> None:
    command = ["caddy", "validate", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")]
    result = subprocess.run(command, env={**os.environ, "STUDY_NAME": STUDY}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@contextmanager
def running(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program that ends with the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answered(client: httpx.Client, path: str, *, log: Path, seconds: float = 60.0) -> httpx.Response:
    """The first answer of a server that is starting."""
    end = time.monotonic() + seconds
    while True:
        try:
            response = client.get(path)
            if response.status_code < 500:
                return response
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, log.read_text("utf-8", "replace")
        time.sleep(0.1)


def may_listen_on_80() -> bool:
    try:
        with socket.socket() as probe:
            probe.bind(("", 80))
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("caddy") is None or not may_listen_on_80(), reason="needs Caddy and port 80")
def test_application_database_and_proxy_work_together(tmp_path: Path, postgres: Server) -> None:
    """Starts the programs of compose.yaml with its command and settings, without containers."""
    study = small_study(tmp_path / "study", pairs_of(3), consent="I take part.")
    port, upstream = free_port(), free_port()
    name = f"localhost:{port}"
    database = postgres.new_database().replace(f":{PASSWORD}@", "@")
    settings = {**SETTINGS, "STUDY_NAME": "localhost", "DATABASE_PASSWORD": PASSWORD}
    application = services(settings)["application"]
    places = {
        "/study": str(study.folder),
        "--host=0.0.0.0": "--host=127.0.0.1",
        "--port=8000": f"--port={upstream}",
        "--database=postgresql://seedpo@database/votes": f"--database={database}",
    }
    assert set(places) <= set(application["command"])
    command = [sys.executable, "-m", "seedpo", *(places.get(part, part) for part in application["command"])]
    proxy = ["caddy", "run", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")]
    proxy_settings = {"STUDY_NAME": name, "APPLICATION": f"127.0.0.1:{upstream}", "XDG_DATA_HOME": str(tmp_path)}
    log, proxy_log = tmp_path / "application.log", tmp_path / "proxy.log"
    with (
        running(command, log, application["environment"]) as server,
        running(proxy, proxy_log, proxy_settings),
        httpx.Client(base_url=f"http://127.0.0.1:{upstream}") as direct,
    ):
        assert answered(direct, "/healthz", log=log).text == "ok\n"
        root = tmp_path / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        end = time.monotonic() + 30
        while not root.exists() and time.monotonic() < end:
            time.sleep(0.1)
        trust = ssl.create_default_context(cafile=str(root))
        with httpx.Client(base_url=f"https://{name}", verify=trust) as client:
            assert answered(client, "/healthz", log=proxy_log).text == "ok\n"
            (link,) = make_links(study.folder, number=1, base=f"https://{name}", url=database_with_password(database))
            votes_through(client, link.removeprefix(f"https://{name}"))
            token = re.search(r"token: (\S+)", log.read_text("utf-8"))
            assert token
            login = client.post("/admin/login", data={"token": token[1]})
            assert login.status_code == 303
            assert "secure" in login.headers["set-cookie"].lower()
            csv = client.get("/admin/votes.csv", headers={"authorization": f"Bearer {token[1]}"})
            assert csv.text.count("\r\n") == 1 + 3
            server.terminate()
            server.wait(20)
            assert client.get(link).status_code == 502
    secret = link.rpartition("/")[2]
    assert all(secret not in path.read_text("utf-8") for path in (log, proxy_log))


def database_with_password(url: str) -> str:
    return url.replace("seedpo@", f"seedpo:{PASSWORD}@")


def votes_through(client: httpx.Client, path: str) -> None:
    """Agrees, looks at both images of each task, and chooses the first."""
    form = re.search(r'name="form_token" value="([^"]+)"', client.get(path).text)
    assert form
    assert client.post(f"{path}/consent", data={"form_token": form[1]}).status_code == 303
    state = client.get(f"{path}/task").json()
    headers = {"x-csrf-token": state["csrf"]}
    for number in range(3):
        for address in (image for item in state["task"]["items"] for image in item):
            assert client.get(address).headers["content-type"] == "image/png"
        body = {"show": state["task"]["show"], "side": "left", "key": f"answer-{number:04d}"}
        response = client.post(f"{path}/vote", json=body, headers=headers)
        assert response.status_code == 200, response.text
        state = response.json()
    assert state["task"] is None
