"""The files of deploy/: checked by the tools that read them, against a server that runs."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.clients import KEY
from support.processes import until
from support.serving import Running, running

from ov_minilm.serve.command import command

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))
MANIFESTS = {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))}
BODY = b'{"input": "a"}'


def tool(name: str) -> str:
    """The path of a program; skips, and says what to install, where there is none."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    return path or pytest.skip(f"{name} is not installed; Debian has it as a package")


def check(*arguments: str | Path) -> None:
    """Run a tool that must find nothing wrong."""
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False, timeout=60)
    assert 0 == done.returncode, done.stdout + done.stderr


def free_url() -> str:
    """The address of a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def started(ready: str, *arguments: str | Path) -> Iterator[Running]:
    """Run a program until the block ends, and wait first until a URL of it answers."""
    url, path = re.split(r"(?<=\d)(?=/)", ready)
    silent: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(list(map(str, arguments)), text=True, **silent) as process:
        found = Running(process, url)

        def answers() -> bool:
            try:
                return found.get(path)[0] == 200
            except OSError:
                return False

        try:
            until(lambda: process.poll() is not None or answers(), 20)
            assert process.poll() is None, arguments
            yield found
        finally:
            process.terminate()


def test_files_name_options_and_files_that_are_there() -> None:
    """Every OV_MINILM_… is one that `serve` reads, mounted files are there, limits of memory agree."""
    known = {str(one.envvar) for one in command.get_params(command.make_context("serve", []))}
    known |= {"OV_MINILM_MEMORY_MB", "OV_MINILM_THREADS"}  # of Embedder.open, which cli.py adds
    for path in filter(Path.is_file, DEPLOY.rglob("*")):
        assert set(re.findall(r"OV_MINILM_[A-Z_]+", path.read_text(encoding="utf-8"))) <= known, path.name
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for service in services.values():
        for volume in service.get("volumes", ()):
            assert (DEPLOY / volume.split(":")[0]).is_file(), volume
    ours = services["embeddings"]
    assert (DEPLOY / ours["build"]["context"] / ours["build"]["dockerfile"]).is_file()
    assert "1g" == ours["mem_limit"]
    assert int(ours["environment"]["OV_MINILM_MEMORY_MB"]) < 0.9 * 2**30 / 10**6


def test_kubernetes_manifests(server: Running) -> None:
    """Each is valid by Kubernetes' own schema, without unknown fields, and selects our pods.

    Probes ask URLs that answer; the autoscaler's metric exists; the bound of memory is under the limit.
    """
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    labels = MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind, manifest in MANIFESTS.items():
        validate.validate(manifest, validate.latest_version(), strict=True)
        selector = manifest["spec"].get("selector")
        assert selector is None or labels == selector.get("matchLabels", selector), kind
    (container,) = MANIFESTS["Deployment"]["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert 200 == server.get(container[probe]["httpGet"]["path"])[0]
    (metric,) = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    assert 1 == len(server.metrics(metric["pods"]["metric"]["name"]))
    budget = next(int(one["value"]) for one in container["env"] if one["name"] == "OV_MINILM_MEMORY_MB")
    limit = container["resources"]["limits"]["memory"]
    assert budget * 10**6 < 0.9 * int(limit.removesuffix("Gi")) * 2**30


def test_prometheus_scrapes_and_answers_the_dashboard(server: Running, tmp_path: Path) -> None:
    """A real Prometheus with our file scrapes the server; each query of the dashboard has an answer."""
    prometheus, promtool = tool("prometheus"), tool("promtool")
    check(promtool, "check", "config", DEPLOY / "prometheus.yml")
    config = (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")
    assert "embeddings:8000" in config
    config = config.replace("embeddings:8000", server.url.removeprefix("http://")).replace("5s", "500ms")
    (tmp_path / "prometheus.yml").write_text(config)
    url = free_url()
    options = (f"--web.listen-address={url[7:]}", f"--storage.tsdb.path={tmp_path / 'data'}")

    command = (prometheus, f"--config.file={tmp_path / 'prometheus.yml'}", *options)
    with started(f"{url}/-/ready", *command) as running_one:

        def ask(query: str) -> Any:
            query = urllib.parse.quote(query.replace("$__rate_interval", "10s"))
            return json.loads(running_one.get(f"/api/v1/query?query={query}")[1])["data"]["result"]

        until(lambda: bool(ask("te_queue_size")), 20)
        rate = "sum(rate(te_request_success_total[10s])) > 0"  # of a counter that was there and grew
        until(lambda: server.get("/v1/embeddings", body=BODY)[0] == 200 and ask(rate) != [], 20)
        for query in (target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]):
            assert "te_request_failure_total" in query or ask(query), query  # which may not be there yet


def _configuration(name: str, *servers: Running) -> str:
    """Our file for a proxy, for two servers that run."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    assert {"127.0.0.1:8000", "127.0.0.1:8001"} == set(re.findall(r"127\.0\.0\.1:\d+", text))
    for address, server in zip(("127.0.0.1:8000", "127.0.0.1:8001"), servers, strict=True):
        text = text.replace(address, server.url.removeprefix("http://"))
    return text


def _ask_until_both_answered(proxy: Running, *servers: Running) -> None:
    """Ask for vectors until the logs of both servers have a request that came after this call."""
    seen = [(server, len(server.lines)) for server in servers]

    def both_asked() -> bool:
        assert 200 == proxy.get("/v1/embeddings", KEY, BODY)[0]
        return all(any("/v1/embeddings" in line for line in one.lines[before:]) for one, before in seen)

    until(both_asked, 20)


def test_nginx_in_front_of_servers(server: Running, tmp_path: Path) -> None:
    """A real nginx with our file: both servers get work; when one ends no request fails."""
    nginx, url = tool("nginx"), free_url()
    with running() as leaving:
        text = _configuration("nginx.conf", server, leaving)
        (tmp_path / "ours.conf").write_text(text.replace("listen 8080", f"listen {url[7:]}"))
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
        (tmp_path / "whole.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}} "
            f"http {{ access_log off; {paths} include {tmp_path}/ours.conf; }}"
        )
        arguments: list[str | Path] = [nginx, "-c", tmp_path / "whole.conf", "-p", tmp_path]
        check(*arguments, "-t")
        with started(f"{url}/readyz", *arguments) as proxy, ThreadPoolExecutor() as pool:
            _ask_until_both_answered(proxy, server, leaving)
            ended = pool.submit(leaving.stop)
            statuses: list[int] = []
            while not ended.done() or len(statuses) < 40:
                statuses.append(proxy.get("/v1/embeddings", body=BODY)[0])

    assert 0 == ended.result()
    assert {200} == set(statuses)


def test_caddy_in_front_of_servers(server: Running, keyed: Running, tmp_path: Path) -> None:
    """A real Caddy with our file: it is valid, and both servers get work."""
    caddy, url = tool("caddy"), free_url()
    text = _configuration("Caddyfile", server, keyed).replace("\n:8080 ", f"\n{url[16:]} ")
    (tmp_path / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    options = ("--config", tmp_path / "Caddyfile", "--adapter", "caddyfile")
    check(caddy, "validate", *options)
    with started(f"{url}/readyz", caddy, "run", *options) as proxy:
        _ask_until_both_answered(proxy, server, keyed)


def test_the_systemd_unit(tmp_path: Path) -> None:
    """systemd-analyze finds nothing wrong, and as little exposed as the unit says."""
    analyze, file = tool("systemd-analyze"), tmp_path / "ov-minilm.service"
    unit = (DEPLOY / "ov-minilm.service").read_text(encoding="utf-8")
    start = "ExecStart=/opt/ov-minilm/bin/ov-minilm"
    assert start in unit
    file.write_text(unit.replace(start, f"ExecStart={shutil.which('true')}"))

    check(analyze, "verify", "--man=no", file)
    check(analyze, "security", "--offline=yes", "--threshold=40", file)
