"""A real server: HTTP byte by byte as RFC 9110 and 9112 have it, slow clients, signals, and bad options."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shutil
import signal
import socket
import subprocess
import time
import zlib
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from support.processes import here, python, until
from support.serving import Running, keep_asking, needs_two_cpus, request_bytes, running

from ov_minilm import Embedder
from ov_minilm.serve.command import command
from ov_minilm.serve.server import url

BODY = json.dumps({"input": "one text", "model": "m"}).encode()
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"3;name=value\r\n%b\r\n%x\r\n%b\r\n0\r\nTrailer: y\r\n\r\n" % (BODY[:3], len(BODY) - 3, BODY[3:])
CLOSE = b"Connection: close\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: "
ASK = HEAD + LENGTH + BODY
LAST = HEAD + CLOSE + LENGTH + BODY
GET = b"GET /livez HTTP/1.1\r\n"
OFFERS = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n",
    UPGRADE + b"TLS/1.0\r\n",
    UPGRADE + b"websocket\r\nSec-WebSocket-Version: 13\r\n",
    b"Upgrade: h2c, foo/2\r\nConnection: keep-alive, upgrade\r\n",
    b"Upgrade: h2c\r\n",
    b"Connection: keep-alive\r\n" + UPGRADE + b"h2c\r\n",
]


def _statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answers)]


@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_to_upgrade_is_ignored(server: Running, offer: bytes) -> None:
    """RFC 9110, 7.8: answered as without it, in whatever pieces; the connection goes on, or closes."""
    offered = HEAD + offer
    get = GET + b"Host: x\r\n" + offer + b"\r\n"
    for pieces in (
        (offered + LENGTH, BODY),
        (offered + CHUNKED + CHUNKS,),
        (offered + CHUNKED, CHUNKS),
        (offered + CHUNKED + CHUNKS[:20], CHUNKS[20:]),
        (bytes([byte]) for byte in offered + LENGTH + BODY),
    ):
        assert [200, 200] == _statuses(server.talk(*pieces, LAST))
    assert [200] * 7 == _statuses(server.talk((offered + LENGTH + BODY) * 5, get + LAST))
    closing = HEAD + b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n" + LENGTH + BODY
    assert [200] == _statuses(server.talk(closing))


CURL = ["curl", "-sS", "-f", "-H", "content-type: application/json", "-d", BODY.decode()]
JAVA = ["java", str(Path(__file__).with_name("EmbedOnce.java"))]


@pytest.mark.parametrize("client", [[*CURL, "--http2"], [*CURL, "-H", "expect: 100-continue"], JAVA], ids=str)
def test_stock_clients_that_offer_http2(server: Running, client: list[str]) -> None:
    """`curl --http2` and the JDK's HttpClient, as they come, get a vector."""
    if not shutil.which(client[0]):
        pytest.skip(f"no {client[0]} on this machine")

    url = f"{server.url}/v1/embeddings"
    done = subprocess.run([*client, url], capture_output=True, check=False, timeout=120)

    assert 0 == done.returncode, done.stderr
    assert 384 == len(json.loads(done.stdout)["data"][0]["embedding"])


def test_a_client_that_expects_to_go_on_is_told_to(server: Running) -> None:
    """100 before the body, then the answer; a body that is too large is refused before it is sent."""
    expect = b"Expect: 100-Continue\r\n"

    assert [100, 200] == _statuses(server.talk(HEAD + CLOSE + expect + LENGTH, BODY))
    assert [413] == _statuses(server.talk(HEAD + expect + b"Content-Length: 100001\r\n\r\n"))
    assert [200] == _statuses(server.talk(HEAD.replace(b"1.1", b"1.0") + expect + LENGTH, BODY))


def _coded(coding: bytes, body: bytes) -> bytes:
    return HEAD + CLOSE + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding, len(body)) + body


GZIP, NO_HTTP, NO_HOST = (
    gzip.compress(BODY, mtime=0),
    "this is not an HTTP/1.1 request",
    "exactly one Host header",
)
PLAIN = HEAD.replace(b"application/json", b"text/plain") + b"Content-Length: 90000\r\n\r\n" + b"a" * 90_000
READ = "\r\naccept-encoding: gzip, deflate\r\n"
WIRE: list[tuple[bytes, str, str]] = [
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00", "505", "configure the client for HTTP/1.1"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400", "this is TLS, and this port speaks plain HTTP"),
    (b"GET\r\n\r\n", "400", NO_HTTP),
    (b"GET / HTTP/9.9\r\n\r\n", "400", NO_HTTP),
    (b"\x00" * 100, "400", NO_HTTP),
    (GET + b"x-filler: " + b"a" * 70_000, "400", "over 65536 bytes"),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "405", "not a proxy"),
    (GET + b"\r\n", "400", NO_HOST),
    (GET + b"Host: a\r\nHost: b\r\n\r\n", "400", NO_HOST),
    (b"GET livez HTTP/1.1\r\nHost: a\r\n\r\n", "400", "Invalid characters in url"),
    (b"GET ftp://x/livez HTTP/1.1\r\nHost: a\r\n\r\n", "400", "must begin with /"),
    (HEAD + CHUNKED + b"zz\r\n", "400", NO_HTTP),
    (HEAD + b"Content-Length: 3\r\n" + CHUNKED + b"abc", "400", "Transfer-Encoding"),
    (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400", "Content-Length"),
    (HEAD + b"Transfer-Encoding: gzip\r\n\r\nabc", "400", "Transfer-Encoding"),
    (request_bytes(b'{"input": "' + b"a" * 200_000 + b'"}'), "413", "larger than 100000 bytes"),
    # Requests in a pipe are answered before what is wrong after them is refused; legal oddities are taken.
    (b"\r\n\r\n" + LAST, "200", ""),
    (b"GET http://x/livez HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", "200", ""),
    (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", "204", ""),
    (b"GET /livez HTTP/1.0\r\n\r\n", "200", ""),
    (ASK + HEAD + CLOSE + b"Content-Length: 1\r\n\r\n{", "200 400", "not valid JSON"),
    (PLAIN * 3 + LAST, "415 415 415 200", ""),  # refused by its head: its body is skipped
    (ASK + b"garbage\r\n\r\n", "200 400", NO_HTTP),
    (ASK * 3 + b"\x00\x00", "200 200 200 400", NO_HTTP),
    (ASK + HEAD + CHUNKED + b"3\r\nabc\r\nzz\r\n", "200 400", NO_HTTP),
    (ASK * 2 + GET + b"\r\n", "200 200 400", NO_HOST),
    # Gzip and deflate are read, also twice; others are 415 with those that are read; bombs do not go off.
    *((_coded(coding, GZIP), "200", "") for coding in (b"gzip", b"X-GZIP")),
    *((_coded(coding, BODY), "200", "") for coding in (b"", b"identity")),
    (_coded(b"deflate", zlib.compress(BODY)), "200", ""),
    (_coded(b"deflate", zlib.compress(BODY)[2:-4]), "200", ""),  # without zlib's frame, as some send it
    (_coded(b"deflate, gzip", gzip.compress(zlib.compress(BODY), mtime=0)), "200", ""),
    *((_coded(coding, BODY), "415", READ) for coding in (b"br", b"gzip, zstd")),
    (_coded(b"gzip", BODY), "400", "the body is not gzip"),
    (_coded(b"gzip", GZIP[:-9]), "400", "the body is gzip that ends too early"),
    (_coded(b"gzip", gzip.compress(b" " * 50_000_000, mtime=0)), "413", "larger than 100000 bytes"),
]


@pytest.mark.parametrize(("sent", "statuses", "said"), WIRE, ids=range(len(WIRE)))
def test_what_comes_over_the_wire_is_answered(server: Running, sent: bytes, statuses: str, said: str) -> None:
    """Each request in order, and what is wrong in the shape of every other error, which says what to do."""
    answer = server.talk(sent).decode()

    assert statuses.split() == re.findall(r"HTTP/1\.1 (\d+)", answer)
    assert said in answer
    if statuses[-3] in "45":
        error = json.loads(answer.rpartition("\r\n\r\n")[2])["error"]
        assert {"message", "type", "param", "code"} == error.keys()


def test_clients_that_leave_do_no_harm(server: Running, shipped: Embedder) -> None:
    """Fifty that hang up at once leave a server that answers right and waits for nobody."""
    body = json.dumps({"input": ["word " * 200] * 20}).encode()
    for _ in range(50):
        with server.connect() as connection:
            connection.sendall(request_bytes(body))

    until(lambda: [0] == server.figures("te_queue_size"), 30)
    found = json.loads(server.get("/embed", body=b'{"inputs": "a"}')[1])

    assert np.array_equal(shipped.encode(["a"]), np.array(found, np.float32))


@pytest.mark.slow
def test_slow_clients_are_let_go(server: Running) -> None:
    """Without a request a connection closes in silence; one that stops within it hears 408."""
    sent = (b"", b"GET /livez HTTP/1.1\r\n", HEAD, HEAD + LENGTH + BODY[:-1])
    started = time.monotonic()
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in sent]
        for client, begun in zip(clients, sent, strict=True):
            client.sendall(begun)
        found = [(client.recv(4096)[9:12], round(time.monotonic() - started, -1)) for client in clients]

    assert [(b"", 10), (b"408", 10), (b"408", 10), (b"408", 30)] == found
    assert [0] == server.figures("te_queue_size")


BAD = """
pass one: --truncate end --auto-truncate false
API key is empty: --api-key=
has no key: --api-key-file empty
is not one of: --token-ids gpt
cannot listen on 192.0.2.1: --host 192.0.2.1
manifest.json: not found: --model .
this machine has: --device GPU.9
one text may have 256: --max-batch-tokens 100
each server process needs 65; the rest: memory_mb=175: --memory-mb 240
Address already in use: --port PORT
"""


@pytest.mark.parametrize("case", BAD.strip().splitlines())
def test_a_bad_start_is_one_clear_line(
    server: Running, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is said at once, with exit code 2."""
    (tmp_path / "empty").touch()
    monkeypatch.chdir(tmp_path)
    message, _, options = case.rpartition(": ")

    done = here("serve", "--port", "0", *options.replace("PORT", server.url.rpartition(":")[2]).split())

    assert 2 == done.returncode, done.stderr
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_an_environment_without_the_extra(server: Running) -> None:
    """The command says what to install; else the first line of its log says what it serves, and where."""
    done = python(
        "import sys; sys.modules['starlette'] = None; sys.argv = ['ov-minilm', 'serve']\n"
        "from ov_minilm.cli import main; main()"
    )

    assert 2 == done.returncode
    assert 'pip install "ov-minilm[serve]"' in done.stderr
    ready = json.loads(server.lines[0])["message"]  # the first: a server for this machine needs no key
    for part in ("ready: http://127.0.0.1:", "all-MiniLM-L6-v2", "int8 on CPU", "kernel", "threads", "MB"):
        assert part in ready
    assert "http://[::1]:80" == url(
        cast("socket.socket", SimpleNamespace(getsockname=lambda: ("::1", 80, 0, 0)))
    )


def test_every_option_has_a_variable() -> None:
    """--help names one for each."""
    text = here("serve", "--help").stdout.decode()
    options = re.findall(r"^  (?:-\w, )?--([a-z-]+)", text, re.MULTILINE)
    flat = re.sub(r"\s+", "", text)

    assert {"served-model-name", "workers", "threads", "model"} < set(options)
    for option in set(options) - {"help"}:
        assert f"envvar:OV_MINILM_{option.replace('-', '_').upper()}" in flat, option


@pytest.mark.parametrize(
    ("names", "value", "expected"),
    [
        ("PORT ports", "9009, 11434", (9009, 11434)),
        ("SERVED_MODEL_NAME served_model_names", "one, two", ("one", "two")),
        ("CORS_ORIGIN cors_origins", "https://a.example", ("https://a.example",)),
        ("AUTO_TRUNCATE auto_truncate", "false", False),
        ("WORKERS workers", "", 1),
    ],
)
def test_variables_are_read_as_options_are(
    names: str, value: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists have commas, an empty one is none, and an option wins."""
    variable, parameter = names.split()
    monkeypatch.setenv(f"OV_MINILM_{variable}", value)

    assert expected == command.make_context("serve", []).params[parameter]
    assert parameter != "ports" or (7,) == command.make_context("serve", ["--port", "7"]).params["ports"]


def test_the_log_holds_no_text_and_no_key() -> None:
    """One JSON line a request, with time, id and traceparent, and nothing of what was sent.

    The server has two ports, as for clients of Ollama, and two keys from its variable.
    """
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    environment = {"OV_MINILM_API_KEY": "sk-other, sk-secret", "OV_MINILM_NONE": "1"}
    with running("--port", "0", "--log-format", "json", **environment) as server:
        for body, key, trace in (
            (b'{"input": "a text that nobody else may read"}', "sk-secret", parent),
            (b'{"inputs": "nobody"}', "sk-other", "made up"),
            (b'{"input": "nobody"}', "sk-wrong", parent),
        ):
            given = (f"authorization: Bearer {key}", f"traceparent: {trace}", "x-request-id: mine")
            server.talk(request_bytes(body, *given, "connection: close"))
        assert 401 == server.get("/v1/models?key=sk-in-the-query")[0]
        first, second = re.findall(r"http://127\.0\.0\.1:\d+", "".join(server.lines))
        assert first != second
        for server.url in (first, second):
            assert (200, '{"status":"alive"}') == server.get("/livez")
        assert 0 == server.stop()

    lines = [json.loads(line) for line in server.lines]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", line["time"]) for line in lines)
    assert {"info", "warning"} == {line["level"] for line in lines}
    requests = [line for line in lines if "status" in line]
    assert [200, 400, 401, 401, 200, 200] == [line["status"] for line in requests]
    assert (1, 9, "mine", parent) == tuple(
        requests[0][key] for key in "texts tokens request_id traceparent".split()
    )
    own = {"client", "method", "path", "status", "ms", "texts", "tokens", "truncated", "request_id"}
    assert own | {"time", "level", "logger"} == requests[1].keys()  # whose trace was none
    assert "s: 6 requests, 1 texts and 9 tokens embedded" in lines[-1]["message"]
    for secret in ("sk-", "nobody", "query"):
        assert secret not in "".join(server.lines)


def test_what_an_operator_should_know_is_said() -> None:
    """A variable without effect and the one that was meant, an open address without a key, the work done.

    And a client's pool that keeps a connection open does not hold up the end.
    """
    variables = {"OV_MINILM_THREDS": "1", "OV_MINILM_AUTO_TRUNCATE": "false"}
    with running("--host", "0.0.0.0", **variables) as server, server.connect() as idle:  # noqa: S104
        assert not json.loads(server.get("/info")[1])["auto_truncate"]
        idle.sendall(ASK)
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        assert 0 == server.stop()
        assert time.monotonic() - started < 10

    text = "".join(server.lines)
    assert "WARNING the environment variable OV_MINILM_THREDS has no effect" in text
    assert "did you mean OV_MINILM_THREADS?" in text
    assert "WARNING no API key is set: everybody who can reach 0.0.0.0 can use this server" in text
    assert re.search(r"INFO stopped after \d+ s: 2 requests, 1 texts and 4 tokens embedded\n$", text)


def test_keys_are_read_again_at_sighup(tmp_path: Path) -> None:
    """The file's new keys are valid at once and the old ones not; a file that is wrong changes nothing."""
    file = tmp_path / "keys"
    file.write_text("old\n\n older \n")
    with running("--api-key-file", str(file), OV_MINILM_API_KEY="other") as server:  # the file wins

        def statuses() -> list[int]:
            return [server.get("/v1/models", key)[0] for key in ("old", "older", "new", "other")]

        assert [200, 200, 401, 401] == statuses()
        for content, said in (("new\n", "1 keys are valid now"), ("\n", "the keys stay as they were")):
            file.write_text(content)
            server.process.send_signal(signal.SIGHUP)
            until(lambda said=said: any(said in line for line in server.lines))  # type: ignore[misc]
            assert [401, 401, 200, 401] == statuses()


@pytest.mark.parametrize(
    ("times", "options"),
    [
        (1, ()),
        pytest.param(1, ("--workers", "2"), marks=needs_two_cpus),
        pytest.param(20, (), marks=pytest.mark.slow),
    ],
)
def test_sigterm_under_load_loses_nothing(times: int, options: tuple[str, ...], shipped: Embedder) -> None:
    """Sixteen clients at work: each request that was sent is answered right, then the process exits 0."""
    texts = [f"client {i} asks " + "again " * i for i in range(16)]

    async def load(server: Running) -> list[tuple[list[object], list[Any]]]:
        told = asyncio.Event()
        calls = (keep_asking(server, text, told, until_refused=True) for text in texts)
        clients = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.5)
        told.set()
        server.process.send_signal(signal.SIGTERM)
        return [await client for client in clients]

    for _ in range(times):
        with running("--access-log", "off", *options) as server:
            answers = asyncio.run(load(server))
            assert 0 == server.process.wait(30), server.lines
        for (wrong, vectors), vector in zip(answers, shipped.encode(texts), strict=True):
            assert [] == wrong
            assert np.array_equal(np.array(vectors, np.float32), np.tile(vector, (len(vectors), 1)))
        assert re.search(r"stopped after .*: [1-9]\d+ requests, .* tokens embedded\n$", server.lines[-1])


def test_a_second_signal_hurries() -> None:
    """A request that would take long is told 503; the server ends as asked, at once and without a trace."""
    long = json.dumps({"input": ["of very many words " * 60] * 2000}).encode()
    with running() as server, server.connect() as client:
        client.sendall(request_bytes(long))
        until(lambda: server.figures("te_batch_running")[0] > 0, 30)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: any("signal 15" in line for line in server.lines))  # two at once might count as one
        assert 0 == server.stop()
        assert time.monotonic() - started < 5
        assert client.recv(100).startswith(b"HTTP/1.1 503")

    assert "Traceback" not in "".join(server.lines)
