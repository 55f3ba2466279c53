"""The files of deploy/ are valid for the programs that read them, and work with real servers."""

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
from support.processes import wait_until
from support.serving import Running, running

from ov_minilm.serve.command import command

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboard.json").read_text(encoding="utf-8"))
MANIFESTS = {
    item["kind"]: item for item in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))
}
ADDRESSES = ("127.0.0.1:8000", "127.0.0.1:8001")  # of the two servers in the proxies' files
BODY = b'{"input": "a"}'


def program(name: str) -> str:
    """Return the path of a program; skip the test if it is not installed."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    return path or pytest.skip(f"{name} is not installed; Debian has it as a package")


def check(*arguments: str | Path) -> None:
    """Run a program that must find no error."""
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False, timeout=60)
    assert 0 == done.returncode, done.stdout + done.stderr


def free_address() -> str:
    """Return the address of a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextmanager
def running_program(address: str, path: str, *arguments: str | Path) -> Iterator[Running]:
    """Run a program until the block ends; wait first until a URL of it answers 200."""
    no_output: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(list(map(str, arguments)), text=True, **no_output) as process:
        server = Running(process, f"http://{address}")

        def answers() -> bool:
            try:
                return server.get(path)[0] == 200
            except OSError:
                return False

        try:
            wait_until(lambda: process.poll() is not None or answers(), 20)
            assert process.poll() is None, arguments
            yield server
        finally:
            process.terminate()


def test_names_in_the_files() -> None:
    """`serve` reads every variable OV_MINILM_…; mounted files exist; memory limits agree."""
    known = {str(option.envvar) for option in command.get_params(command.make_context("serve", []))}
    known |= {"OV_MINILM_MEMORY_MB", "OV_MINILM_THREADS"}  # options of Embedder.open, which cli.py adds
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
    """Each manifest is valid by Kubernetes' own schema, without unknown fields, and selects our pods.

    Probes ask URLs that answer; the autoscaler's metric exists; the memory budget is under the limit.
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
    (budget_mb,) = (int(item["value"]) for item in container["env"] if item["name"] == "OV_MINILM_MEMORY_MB")
    limit = container["resources"]["limits"]["memory"]
    assert budget_mb * 10**6 < 0.9 * int(limit.removesuffix("Gi")) * 2**30


def test_prometheus_and_the_dashboard(server: Running, tmp_path: Path) -> None:
    """A real Prometheus with our file scrapes the server; each query of the dashboard has an answer."""
    prometheus, promtool, address = program("prometheus"), program("promtool"), free_address()
    check(promtool, "check", "config", DEPLOY / "prometheus.yml")
    config = (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")
    assert "embeddings:8000" in config
    config = config.replace("embeddings:8000", server.url.removeprefix("http://")).replace("5s", "500ms")
    file, data = tmp_path / "prometheus.yml", tmp_path / "data"
    file.write_text(config)

    options = (f"--config.file={file}", f"--web.listen-address={address}", f"--storage.tsdb.path={data}")
    with running_program(address, "/-/ready", prometheus, *options) as scraper:

        def ask(query: str) -> Any:
            query = urllib.parse.quote(query.replace("$__rate_interval", "10s"))
            return json.loads(scraper.get(f"/api/v1/query?query={query}")[1])["data"]["result"]

        wait_until(lambda: bool(ask("te_queue_size")), 20)
        rate = "sum(rate(te_request_success_total[10s])) > 0"  # a rate needs two scrapes
        wait_until(lambda: server.get("/v1/embeddings", body=BODY)[0] == 200 and ask(rate) != [], 20)
        for query in (target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]):
            assert "te_request_failure_total" in query or ask(query), query  # no failures yet


def proxy_file(name: str, *servers: Running) -> str:
    """Return our file for a proxy, with the addresses of two running servers."""
    text = (DEPLOY / name).read_text(encoding="utf-8")
    assert {*ADDRESSES} == {*re.findall(r"127\.0\.0\.1:\d+", text)}
    for address, server in zip(ADDRESSES, servers, strict=True):
        text = text.replace(address, server.url.removeprefix("http://"))
    return text


def ask_until_both_answered(proxy: Running, *servers: Running) -> None:
    """Ask for vectors until the logs of both servers have a request that came after this call."""
    log_sizes = [(server, len(server.lines)) for server in servers]

    def both_answered() -> bool:
        assert 200 == proxy.get("/v1/embeddings", body=BODY)[0]
        return all(any("/v1/embeddings" in line for line in one.lines[before:]) for one, before in log_sizes)

    wait_until(both_answered, 20)


def test_nginx(tmp_path: Path) -> None:
    """With nginx before two servers of two processes, no request fails while a server shuts down."""
    nginx, address = program("nginx"), free_address()
    with running("--workers", "2") as staying, running("--workers", "2") as leaving:
        text = proxy_file("nginx.conf", staying, leaving).replace("listen 8080", f"listen {address}")
        (tmp_path / "ours.conf").write_text(text)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
        (tmp_path / "whole.conf").write_text(
            f"daemon off; pid {tmp_path}/pid; error_log stderr; events {{}} "
            f"http {{ access_log off; {paths} include {tmp_path}/ours.conf; }}"
        )
        arguments: list[str | Path] = [nginx, "-c", tmp_path / "whole.conf", "-p", tmp_path]
        check(*arguments, "-t")
        with running_program(address, "/readyz", *arguments) as proxy, ThreadPoolExecutor() as pool:
            ask_until_both_answered(proxy, staying, leaving)
            ended = pool.submit(leaving.stop)
            statuses: list[int] = []
            while not ended.done() or len(statuses) < 40:
                statuses.append(proxy.get("/v1/embeddings", body=BODY)[0])

    assert 0 == ended.result()
    assert {200} == set(statuses)


def test_caddy(server: Running, tmp_path: Path) -> None:
    """Caddy accepts our file and sends requests to both servers."""
    caddy, address, file = program("caddy"), free_address(), tmp_path / "Caddyfile"
    options = ("--config", file, "--adapter", "caddyfile")
    with running() as other:
        text = proxy_file("Caddyfile", server, other).replace("\n:8080 ", f"\n:{address.split(':')[1]} ")
        file.write_text("{\n\tadmin off\n}\n" + text)
        check(caddy, "validate", *options)
        with running_program(address, "/readyz", caddy, "run", *options) as proxy:
            ask_until_both_answered(proxy, server, other)


def test_systemd_unit(tmp_path: Path) -> None:
    """systemd-analyze finds no error, and an exposure level within the limit."""
    analyze, file = program("systemd-analyze"), tmp_path / "ov-minilm.service"
    unit = (DEPLOY / "ov-minilm.service").read_text(encoding="utf-8")
    start = "ExecStart=/opt/ov-minilm/bin/ov-minilm"
    assert start in unit
    file.write_text(unit.replace(start, f"ExecStart={shutil.which('true')}"))

    check(analyze, "verify", "--man=no", file)
    check(analyze, "security", "--offline=yes", "--threshold=40", file)
