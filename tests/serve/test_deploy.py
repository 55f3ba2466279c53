"""The files of deploy/: checked by the tools that read them, against a server that runs."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.processes import until
from support.serving import Running, running

from ov_minilm.serve.command import command

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
MANIFESTS = {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))}
VARIABLE = re.compile(r"OV_MINILM_[A-Z_]+")


def tool(name: str) -> str:
    """The path of a program; skips, and says what to install, where there is none."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed; Debian has it as a package")
    return path


def check(*arguments: str | Path) -> str:
    """Run a tool that must find nothing wrong; return what it says."""
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False, timeout=60)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(url: str, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, and wait first until a URL of it answers."""
    with subprocess.Popen(
        list(map(str, arguments)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until(lambda: process.poll() is not None or answers(url), 20)
            assert process.poll() is None, arguments
            yield process
        finally:
            process.terminate()


def answers(url: str) -> bool:
    """Return whether a URL answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310  # our own server
            return True
    except OSError:
        return False


def embed(url: str) -> int:
    """Ask for a vector, and return the status."""
    request = urllib.request.Request(  # noqa: S310  # our own server
        f"{url}/v1/embeddings", b'{"input": "a"}', {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return int(answer.status)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Running]]:
    """Two servers."""
    with running() as one, running() as other:
        yield [one, other]


def test_variables_are_options_of_the_server() -> None:
    """Every OV_MINILM_… in a file of deploy/ is one that `serve` reads."""
    known = {
        str(one.envvar) for one in command.get_params(command.make_context("serve", []))
    }  # with the server's
    known |= {"OV_MINILM_MEMORY_MB", "OV_MINILM_THREADS"}  # and those of Embedder.open, which cli.py adds
    for path in filter(Path.is_file, DEPLOY.rglob("*")):
        assert set(VARIABLE.findall(path.read_text(encoding="utf-8"))) <= known, path.name


@pytest.mark.parametrize("kind", MANIFESTS)
def test_kubernetes_manifests(kind: str) -> None:
    """Each is valid by Kubernetes' own schema, without unknown fields, and selects our pods."""
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    manifest = MANIFESTS[kind]
    validate.validate(manifest, validate.latest_version(), strict=True)
    spec = manifest["spec"]
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    if selector := spec.get("selector"):
        assert labels == selector.get("matchLabels", selector)


def test_what_kubernetes_asks_for_is_there(servers: list[Running]) -> None:
    """Probes ask URLs that answer; the autoscaler's metric exists; the bound of memory is under the limit."""
    (container,) = MANIFESTS["Deployment"]["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert answers(servers[0].url + container[probe]["httpGet"]["path"])
    (metric,) = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    with urllib.request.urlopen(f"{servers[0].url}/metrics") as answer:  # noqa: S310  # our own server
        assert f"\n{metric['pods']['metric']['name']} " in answer.read().decode()
    budget = next(int(one["value"]) for one in container["env"] if one["name"] == "OV_MINILM_MEMORY_MB")
    limit = container["resources"]["limits"]["memory"]
    assert budget * 10**6 < 0.9 * int(limit.removesuffix("Gi")) * 2**30


def test_compose_names_files_that_are_there() -> None:
    """Every file that a service mounts lies in deploy/, and its own limits of memory agree."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            assert (DEPLOY / volume.split(":")[0]).is_file(), volume
    ours = services["embeddings"]
    assert (DEPLOY / ours["build"]["context"] / ours["build"]["dockerfile"]).is_file()
    assert "1g" == ours["mem_limit"]
    assert int(ours["environment"]["OV_MINILM_MEMORY_MB"]) < 0.9 * 2**30 / 10**6


def test_prometheus_scrapes_and_answers_the_dashboard(servers: list[Running], tmp_path: Path) -> None:
    """A real Prometheus with our file scrapes the server; each query of the dashboard has an answer."""
    prometheus, promtool = tool("prometheus"), tool("promtool")
    check(promtool, "check", "config", DEPLOY / "prometheus.yml")
    config = (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")
    assert "embeddings:8000" in config
    config = config.replace("embeddings:8000", servers[0].url.removeprefix("http://")).replace("5s", "500ms")
    (tmp_path / "prometheus.yml").write_text(config)
    address = f"127.0.0.1:{free_port()}"
    options = (f"--web.listen-address={address}", f"--storage.tsdb.path={tmp_path / 'data'}")

    def ask(query: str) -> list[Any]:
        query = urllib.parse.quote(query.replace("$__rate_interval", "10s"))
        with urllib.request.urlopen(f"http://{address}/api/v1/query?query={query}") as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
        return found

    ready = f"http://{address}/-/ready"
    with started(ready, prometheus, f"--config.file={tmp_path / 'prometheus.yml'}", *options):
        until(lambda: bool(ask("te_queue_size")), 20)
        rate = "sum(rate(te_request_success_total[10s])) > 0"  # of a counter that was there and grew
        until(lambda: embed(servers[0].url) == 200 and ask(rate) != [], 20)
        for query in QUERIES:  # no request failed, so that counter is not there yet
            assert "te_request_failure_total" in query or ask(query), query


def _configuration(name: str, servers: list[Running]) -> str:
    """Our file for a proxy, for two servers that run."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    assert {"127.0.0.1:8000", "127.0.0.1:8001"} == set(re.findall(r"127\.0\.0\.1:\d+", text))
    for address, server in zip(("127.0.0.1:8000", "127.0.0.1:8001"), servers, strict=True):
        text = text.replace(address, server.url.removeprefix("http://"))
    return text


def test_nginx_in_front_of_servers(servers: list[Running], tmp_path: Path) -> None:
    """A real nginx with our file: both servers get work; when one ends under load no request fails."""
    nginx, port = tool("nginx"), free_port()
    counts = [0] * 4
    wrong: list[object] = []
    ended = threading.Event()

    def client(number: int) -> None:
        while not ended.is_set():
            try:
                assert 200 == embed(f"http://127.0.0.1:{port}")
            except OSError as error:  # each request counts
                wrong.append(error)
            counts[number] += 1

    with running() as leaving:
        text = _configuration("nginx.conf", [servers[0], leaving])
        (tmp_path / "ours.conf").write_text(text.replace("listen 8080", f"listen 127.0.0.1:{port}"))
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
        (tmp_path / "whole.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}} "
            f"http {{ access_log off; {paths} include {tmp_path}/ours.conf; }}"
        )
        arguments: list[str | Path] = [nginx, "-c", tmp_path / "whole.conf", "-p", tmp_path]
        check(*arguments, "-t")
        with started(f"http://127.0.0.1:{port}/readyz", *arguments):
            clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
            for one in clients:
                one.start()
            until(lambda: min(counts) > 5, 20)
            assert 0 == leaving.stop(signal.SIGTERM)
            before = sum(counts)
            until(lambda: sum(counts) > before + 20, 20)
            ended.set()
            for one in clients:
                one.join()

    assert [] == wrong
    assert any("/v1/embeddings" in line for line in leaving.lines)


def test_caddy_in_front_of_servers(servers: list[Running], tmp_path: Path) -> None:
    """A real Caddy with our file: it is valid, and both servers get work."""
    caddy, port = tool("caddy"), free_port()
    file, url = tmp_path / "Caddyfile", f"http://127.0.0.1:{port}"
    text = _configuration("Caddyfile", servers).replace("\n:8080 ", f"\n:{port} ")
    file.write_text("{\n\tadmin off\n}\n" + text)
    check(caddy, "validate", "--config", file, "--adapter", "caddyfile")
    lines = [len(server.lines) for server in servers]
    with started(f"{url}/readyz", caddy, "run", "--config", file, "--adapter", "caddyfile"):

        def all_asked() -> bool:
            return embed(url) == 200 and all(
                any("/v1/embeddings" in line for line in server.lines[before:])
                for server, before in zip(servers, lines, strict=True)
            )

        until(all_asked, 20)


def test_the_systemd_unit(tmp_path: Path) -> None:
    """systemd-analyze finds nothing wrong, and as little exposed as the unit says."""
    analyze = tool("systemd-analyze")
    unit = (DEPLOY / "ov-minilm.service").read_text(encoding="utf-8")
    binary = "/opt/ov-minilm/bin/ov-minilm"
    assert binary in unit
    file = tmp_path / "ov-minilm.service"
    file.write_text(unit.replace(f"ExecStart={binary}", f"ExecStart={shutil.which('true')}"))

    check(analyze, "verify", "--man=no", file)
    assert "Overall exposure level" in check(analyze, "security", "--offline=yes", "--threshold=40", file)
