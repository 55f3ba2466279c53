"""The server as a process: what slow clients, signals and bad options do to it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from support.processes import run, until
from support.serving import Running, needs_two_cpus, running

from ov_minilm import Embedder
from ov_minilm.serve.command import command
from ov_minilm.spec import FloatArray

CLOSE = "connection: close"
SECRET, TEXT = "sk-very-secret", "a text that nobody else may read"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server with a small body limit."""
    with running("--payload-limit", "100000", "--access-log", "json") as server:
        yield server


def _request(body: bytes, *headers: str) -> bytes:
    lines = ["POST /v1/embeddings HTTP/1.1", "host: x", "content-type: application/json", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def _talk(server: Running, data: bytes) -> bytes:
    """Send bytes as they are and return everything until the server closes the connection."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(data)
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
        return found


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310  # our own server
        return json.loads(answer.read())


ASK = _request(b'{"input": "a"}', CLOSE)
REFUSED = (
    b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: 90000\r\n\r\n"
)
PIPE = _request(b'{"input": "a"}', "x-request-id: 1") + _request(b"{", "x-request-id: 2", CLOSE)


@pytest.mark.parametrize(
    ("sent", "statuses", "part"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400", '"message":"this is TLS'),
        (b"GET\r\n\r\n", "400", '"param":null'),
        (b"GET / HTTP/9.9\r\n\r\n", "400", '"code":null'),
        (b"\x00" * 100, "400", '"type":"invalid_request_error"'),
        (b"GET / HTTP/1.1\r\nx-filler: " + b"a" * 70_000, "400", "over 65536 bytes"),
        (_request(b'{"input": "' + b"a" * 200_000 + b'"}', CLOSE), "413", "larger than 100000 bytes"),
        ((REFUSED + b"a" * 90_000) * 3 + ASK, "415 415 415 200", ""),
        (PIPE, "200 400", "x-request-id: 2"),
    ],
    ids="tls half-a-line http-9 noise endless-head large-body refused-by-its-head pipe".split(),
)
def test_what_comes_over_the_wire_is_answered(server: Running, sent: bytes, statuses: str, part: str) -> None:
    """What is no HTTP, or too long, hears why in JSON; a refused body is skipped; a pipe keeps its order."""
    answer = _talk(server, sent).decode()

    assert statuses.split() == re.findall(r"HTTP/1.1 (\d+)", answer)
    assert part in answer
    if statuses == "400":
        assert {"message", "type", "param", "code"} == json.loads(answer.partition("\r\n\r\n")[2])[
            "error"
        ].keys()


def test_clients_that_leave_do_no_harm(server: Running, shipped: Embedder) -> None:
    """Fifty that hang up at once leave a server that answers right and waits for nobody."""
    body = json.dumps({"input": ["word " * 200] * 20}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    for _ in range(50):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(_request(body))

    answer = _talk(server, _request(b'{"input": "a"}', CLOSE))
    until(lambda: _figure(server, "te_queue_size") == 0, 30)

    found = json.loads(answer.partition(b"\r\n\r\n")[2])["data"][0]["embedding"]
    assert np.array_equal(shipped.encode("a"), np.array(found, np.float32))


def _figure(server: Running, name: str) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:  # noqa: S310  # our own server
        found = re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


@pytest.mark.slow
def test_slow_clients_are_let_go(server: Running) -> None:
    """One that is silent, one that stops in its headers, one that stops in its body: closed, places free."""
    host, port = server.url.removeprefix("http://").split(":")
    sent = (b"", b"GET /livez HTTP/1.1\r\n", _request(b"{}" * 50)[:-1])
    started = time.monotonic()
    took = []
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection((host, int(port)), 60)) for _ in sent]
        for client, begun in zip(clients, sent, strict=True):
            client.sendall(begun)
        for client in clients:
            assert b"" == client.recv(100)
            took.append(time.monotonic() - started)

    assert [10, 10, 30] == [round(seconds, -1) for seconds in took]
    assert 0 == _figure(server, "te_queue_size")


def test_the_log_holds_no_text_and_no_key() -> None:
    """At the level that is the default: one JSON line a request, and nothing of what was sent."""
    with running("--api-key", SECRET, "--access-log", "json") as server:
        for body, key in (
            ({"input": TEXT}, SECRET),
            ({"inputs": TEXT}, SECRET),
            ({"input": TEXT}, "sk-wrong"),
        ):
            _talk(server, _request(json.dumps(body).encode(), f"authorization: Bearer {key}", CLOSE))
        _talk(server, b"GET /v1/models?key=sk-in-the-query HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert 0 == server.stop()

    lines = [json.loads(line) for line in server.lines]
    requests = [line for line in lines if "status" in line]
    assert [200, 400, 401, 401] == [line["status"] for line in requests]
    assert (1, 9) == (requests[0]["texts"], requests[0]["tokens"])
    assert {"client", "method", "path", "status", "ms", "texts", "tokens", "truncated", "request_id"} == {
        *requests[0]
    } - {"time", "level", "logger"}
    for secret in (SECRET, TEXT, "sk-wrong", "nobody", "query"):
        assert secret not in "".join(server.lines)


def test_ready_is_one_line(server: Running) -> None:
    """The first line says where it is and what it serves; before it nothing answers."""
    assert "ready: http://127.0.0.1:" in server.lines[0]
    for part in ("all-MiniLM-L6-v2", "int8 on CPU", "kernel", "threads", "MB"):
        assert part in server.lines[0]
    assert '"level":"info"' in server.lines[0]
    assert {"status": "ready"} == _get(f"{server.url}/readyz")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--port", "70000"], 2, "70000 is not in the range"),
        (["--host", "192.0.2.1"], 2, "cannot listen on 192.0.2.1"),
        (["--model", "."], 2, "manifest.json: not found"),
        (["--truncate", "end", "--auto-truncate", "false"], 2, "pass one"),
        (["--api-key", ""], 2, "API key is empty"),
        (["--api-key-file", "empty"], 2, "has no key"),
        (["--token-ids", "gpt"], 2, "is not one of"),
        (["--device", "GPU.9"], 2, "this machine has"),
        (["--max-batch-tokens", "100"], 2, "one text may have 256"),
        (["--no-such-option"], 2, "No such option"),
    ],
)
def test_a_bad_start_is_one_clear_line(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is said at once, with an exit code, and no server is left."""
    (tmp_path / "empty").touch()
    monkeypatch.chdir(tmp_path)

    done = run("serve", *arguments)

    assert code == done.returncode, done.stderr
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_taken_port_is_one_clear_line(server: Running) -> None:
    """Two servers on one port: the second says so and exits 2."""
    done = run("serve", "--port", server.url.rpartition(":")[2])

    assert 2 == done.returncode
    assert b"Address already in use" in done.stderr


def test_keys_come_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    """A file holds one a line; the environment holds them apart by commas."""
    (tmp_path / "keys").write_text("one\n\n two \n")

    for options, environment in (
        (["--api-key-file", str(tmp_path / "keys")], {}),
        ([], {"OV_MINILM_API_KEY": "one,two"}),
    ):
        with running(*options, **environment) as server:
            for key, status in (("one", b"200"), ("two", b"200"), ("three", b"401")):
                answer = _talk(server, _request(b'{"input": "a"}', f"authorization: Bearer {key}", CLOSE))
                assert answer.startswith(b"HTTP/1.1 " + status), key


def test_every_option_has_a_variable() -> None:
    """--help names one for each."""
    text = run("serve", "--help").stdout.decode()
    options = re.findall(r"^  (?:-\w, )?--([a-z-]+)", text, re.MULTILINE)
    flat = re.sub(r"\s+", "", text)

    assert {"served-model-name", "workers", "threads", "model"} < set(options)
    for option in set(options) - {"help"}:
        assert f"envvar:OV_MINILM_{option.replace('-', '_').upper()}" in flat, option


@pytest.mark.parametrize(
    ("variable", "value", "parameter", "expected"),
    [
        ("PORT", "9009, 11434", "ports", (9009, 11434)),
        ("SERVED_MODEL_NAME", "one, two", "served_model_names", ("one", "two")),
        ("CORS_ORIGIN", "https://a.example", "cors_origins", ("https://a.example",)),
        ("STRICT_MODEL", "true", "strict_model", True),
        ("WARM_UP", "false", "warm_up", False),
        ("AUTO_TRUNCATE", "false", "auto_truncate", False),
        ("TRUNCATE", "mean", "truncate", "mean"),
        ("MAX_QUEUE_SECONDS", "0.5", "max_queue_seconds", 0.5),
        ("WORKERS", "2", "workers", 2),
        ("WORKERS", "", "workers", 1),
        ("PORT", "70000", "ports", "70000 is not in the range"),
        ("TOKEN_IDS", "gpt", "token_ids", "is not one of"),
    ],
)
def test_variables_are_read_as_options_are(
    variable: str, value: str, parameter: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists have commas, an empty one is none, a wrong value is an error, and an option wins."""
    monkeypatch.setenv(f"OV_MINILM_{variable}", value)
    if isinstance(expected, str) and expected != value:
        with pytest.raises(click.BadParameter, match=expected):
            command.make_context("serve", [])
        return
    assert expected == command.make_context("serve", []).params[parameter]
    assert (7,) == command.make_context("serve", ["--port", "7"]).params["ports"]


def test_what_an_operator_should_know_is_said() -> None:
    """A variable without effect and the one that was meant, an open address without a key, the work done."""
    with running("--host", "0.0.0.0", OV_MINILM_THREDS="1") as server:  # noqa: S104  # that is what is tested
        url = server.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        with urllib.request.urlopen(f"{url}/livez", timeout=30):  # noqa: S310  # our own server
            pass
        assert 0 == server.stop()

    text = "".join(server.lines)
    assert "WARNING the environment variable OV_MINILM_THREDS has no effect" in text
    assert "did you mean OV_MINILM_THREADS?" in text
    assert "WARNING no API key is set: everybody who can reach 0.0.0.0 can use this server" in text
    assert re.search(r"INFO stopped after \d+ s: 1 requests, 0 texts and 0 tokens embedded\n$", text)


def test_lines_of_json_have_time_and_trace() -> None:
    """With --log-format json every line is JSON with a time; that of a request has its id and traceparent."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with running("--log-format", "json", OV_MINILM_NONE="1") as server:
        _talk(server, _request(b'{"input": "a"}', f"traceparent: {parent}", "x-request-id: mine", CLOSE))
        _talk(server, _request(b'{"input": "a"}', "traceparent: made up", CLOSE))
        assert 0 == server.stop()

    lines = [json.loads(line) for line in server.lines]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", line["time"]) for line in lines)
    assert {"info", "warning"} == {line["level"] for line in lines}
    first, second = (line for line in lines if "status" in line)
    assert ("mine", parent) == (first["request_id"], first["traceparent"])
    assert "traceparent" not in second
    assert "s: 2 requests, 2 texts and 6 tokens embedded" in lines[-1]["message"]


def test_several_ports() -> None:
    """One server listens on all of them, as for clients of Ollama that expect 11434."""
    with running("--port", "0") as server:
        line = next(line for line in server.lines if "ready" in line)
        first, second = re.findall(r"http://127\.0\.0\.1:\d+", line)
        assert first != second
        for url in (first, second):
            assert {"status": "alive"} == _get(f"{url}/livez")


def test_keys_are_read_again_at_sighup(tmp_path: Path) -> None:
    """The file's new keys are valid at once and the old ones not; a file that is wrong changes nothing."""
    file = tmp_path / "keys"
    file.write_text("old\n")
    with running("--api-key-file", str(file)) as server:

        def status(key: str) -> int:
            answer = _talk(server, _request(b'{"input": "a"}', f"authorization: Bearer {key}", CLOSE))
            return int(answer.split()[1])

        assert (200, 401) == (status("old"), status("new"))
        file.write_text("new\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: any("1 keys are valid now" in line for line in server.lines))
        assert (401, 200) == (status("old"), status("new"))
        file.write_text("\n")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: any("the keys stay as they were" in line for line in server.lines))
        assert (401, 200) == (status("old"), status("new"))


async def _ask(server: Running, text: str, vector: FloatArray, told: asyncio.Event) -> list[str]:
    """Keep asking on one connection at a time until no new one can be had; return what went wrong."""
    host, port = server.url.removeprefix("http://").split(":")
    wrong: list[str] = []
    request = _request(json.dumps({"input": text, "encoding_format": "float"}).encode())
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return wrong if told.is_set() else [*wrong, "refused before the signal"]
        close = False
        while not close:
            writer.write(request)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                assert length
                body = await reader.readexactly(int(length[1]))
            except (asyncio.IncompleteReadError, OSError) as error:
                return [*wrong, f"lost: {error!r}"]
            close = b"connection: close" in head
            if not head.startswith(b"HTTP/1.1 200"):
                wrong.append(head.decode())
            elif not np.array_equal(vector, np.array(json.loads(body)["data"][0]["embedding"], np.float32)):
                wrong.append("another vector")
        writer.close()


@pytest.mark.parametrize(
    ("times", "options"),
    [
        (2, ()),
        pytest.param(1, ("--workers", "2"), marks=needs_two_cpus),
        pytest.param(20, (), marks=pytest.mark.slow),
    ],
)
def test_sigterm_under_load_loses_nothing(times: int, options: tuple[str, ...], shipped: Embedder) -> None:
    """Sixteen clients at work: each request that was sent is answered right, then the process exits 0."""
    texts = [f"client {i} asks " + "again " * i for i in range(16)]
    vectors = shipped.encode(texts)

    async def load(server: Running) -> list[str]:
        told = asyncio.Event()
        clients = [
            asyncio.ensure_future(_ask(server, *pair, told)) for pair in zip(texts, vectors, strict=True)
        ]
        await asyncio.sleep(0.5)
        told.set()
        server.process.send_signal(signal.SIGTERM)
        return [wrong for client in clients for wrong in await client]

    for _ in range(times):
        with running("--access-log", "off", *options) as server:
            assert [] == asyncio.run(load(server))
            assert 0 == server.process.wait(30), server.lines


def test_idle_connections_do_not_hold_up_the_end() -> None:
    """A client's pool keeps a connection open; the server still ends in a second or two."""
    with running() as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as idle:
            idle.sendall(_request(b'{"input": "a"}'))
            assert idle.recv(100).startswith(b"HTTP/1.1 200")
            started = time.monotonic()
            assert 0 == server.stop()

    assert time.monotonic() - started < 10


def test_a_second_signal_hurries() -> None:
    """A request that would take long is told 503; the server ends as asked, at once and without a trace."""
    long = json.dumps({"input": ["of very many words " * 60] * 2000}).encode()
    with running() as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as client:
            client.sendall(_request(long))
            until(lambda: _figure(server, "te_batch_running") > 0, 30)
            started = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            until(lambda: any("signal 15" in line for line in server.lines))  # two at once might count as one
            assert 0 == server.stop()
            assert time.monotonic() - started < 5
            assert client.recv(100).startswith(b"HTTP/1.1 503")

    assert "Traceback" not in "".join(server.lines)


def test_a_missing_extra_is_named() -> None:
    """Without the extra's packages the command says what to install."""
    code = (
        "import sys; sys.modules['starlette'] = None; sys.argv = ['ov-minilm', 'serve']\n"
        "from ov_minilm.cli import main; main()"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert 2 == done.returncode
    assert 'pip install "ov-minilm[serve]"' in done.stderr
