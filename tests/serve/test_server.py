"""A real server: HTTP as RFC 9110 and 9112 define it, slow clients, signals, options and the log."""

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
from support.processes import python, run, run_inline, wait_until
from support.serving import CPUS, Running, keep_asking, needs_two_cpus, request_bytes, running

from ov_minilm import Embedder
from ov_minilm.serve.command import command
from ov_minilm.serve.server import JoinedWrites, Server, url
from ov_minilm.serve.workers import Supervisor

BODY = json.dumps({"input": "one text", "model": "m"}).encode()
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"3;name=value\r\n%b\r\n%x\r\n%b\r\n0\r\nTrailer: y\r\n\r\n" % (BODY[:3], len(BODY) - 3, BODY[3:])
CLOSE = b"Connection: close\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: "
REQUEST = HEAD + LENGTH + BODY
LAST_REQUEST = HEAD + CLOSE + LENGTH + BODY
GET = b"GET /livez HTTP/1.1\r\n"
OFFERS = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n",
    UPGRADE + b"TLS/1.0\r\n",
    UPGRADE + b"websocket\r\nSec-WebSocket-Version: 13\r\n",
    b"Upgrade: h2c, foo/2\r\nConnection: keep-alive, upgrade\r\n",
    b"Upgrade: h2c\r\n",
    b"Connection: keep-alive\r\n" + UPGRADE + b"h2c\r\n",
]


def statuses(answers: bytes) -> list[int]:
    """Return the statuses of the answers on one connection."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answers)]


@pytest.mark.parametrize("offer", OFFERS)
def test_offers_to_upgrade_are_ignored(server: Running, offer: bytes) -> None:
    """As in RFC 9110, 7.8, the answer is that without an offer, however the request is split."""
    offered = HEAD + offer
    get = GET + b"Host: x\r\n" + offer + b"\r\n"
    for pieces in (
        (offered + LENGTH, BODY),
        (offered + CHUNKED + CHUNKS,),
        (offered + CHUNKED, CHUNKS),
        (offered + CHUNKED + CHUNKS[:20], CHUNKS[20:]),
        (bytes([byte]) for byte in offered + LENGTH + BODY),
    ):
        assert [200, 200] == statuses(server.talk(*pieces, LAST_REQUEST))
    assert [200] * 7 == statuses(server.talk((offered + LENGTH + BODY) * 5, get + LAST_REQUEST))
    closing = HEAD + b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n" + LENGTH + BODY
    assert [200] == statuses(server.talk(closing))


CURL = ["curl", "-sS", "-f", "-H", "content-type: application/json", "-d", BODY.decode()]
JAVA = ["java", str(Path(__file__).with_name("EmbedOnce.java"))]


@pytest.mark.slow  # the bytes that they send are in OFFERS
@pytest.mark.parametrize("client", [[*CURL, "--http2"], [*CURL, "-H", "expect: 100-continue"], JAVA], ids=str)
def test_clients_that_offer_http2(server: Running, client: list[str]) -> None:
    """`curl --http2`, `curl` with Expect, and the JDK's HttpClient with its defaults get a vector."""
    if not shutil.which(client[0]):
        pytest.skip(f"no {client[0]} on this machine")

    result = subprocess.run(
        [*client, f"{server.url}/v1/embeddings"], capture_output=True, check=False, timeout=120
    )

    assert 0 == result.returncode, result.stderr
    assert 384 == len(json.loads(result.stdout)["data"][0]["embedding"])


def encoded(encoding: bytes, body: bytes) -> bytes:
    """Return a request whose body has a content encoding."""
    length = b"Content-Length: %d\r\n\r\n" % len(body)
    return HEAD + CLOSE + b"Content-Encoding: " + encoding + b"\r\n" + length + body


GZIP = gzip.compress(BODY, mtime=0)
EXPECT = b"Expect: 100-Continue\r\n"
NOT_HTTP, NO_HOST = "this is not an HTTP/1.1 request", "exactly one Host header"
NOT_JSON = HEAD.replace(b"application/json", b"text/plain") + b"Content-Length: 90000\r\n\r\n" + b"a" * 90_000
ACCEPTED_ENCODINGS = "\r\naccept-encoding: gzip, deflate\r\n"
HTTP_CASES: list[tuple[bytes, str, str]] = [
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00", "505", "configure the client for HTTP/1.1"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400", "this is TLS, and this port speaks plain HTTP"),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505", "this is HTTP/2.0, and this port speaks HTTP/1.1"),
    *((sent, "400", NOT_HTTP) for sent in (b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", bytes(100))),
    (GET + b"x-filler: " + b"a" * 70_000, "400", "over 65536 bytes"),
    (HEAD + b"x-filler: " + b"a" * 70_000 + b"\r\n" + LENGTH + BODY, "400", "over 65536 bytes"),
    (HEAD + CHUNKED + b"0\r\nx-trailer: " + b"a" * 70_000, "400", "over 65536 bytes"),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "405", "not a proxy"),
    (GET + b"\r\n", "400", NO_HOST),
    (GET + b"Host: a\r\nHost: b\r\n\r\n", "400", NO_HOST),
    (b"GET livez HTTP/1.1\r\nHost: a\r\n\r\n", "400", "Invalid characters in url"),
    *(
        (b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target, "400", "must begin with /")
        for target in (b"ftp://x/livez", b"http://x:99999/livez", b"http://[::1/livez")
    ),
    (HEAD + CHUNKED + b"zz\r\n", "400", NOT_HTTP),
    (HEAD + b"Content-Length: 3\r\n" + CHUNKED + b"abc", "400", "Transfer-Encoding"),
    (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400", "Content-Length"),
    (HEAD + b"Transfer-Encoding: gzip\r\n\r\nabc", "400", "Transfer-Encoding"),
    (HEAD + b"Transfer-Encoding: gzip\r\n" + CHUNKED + b"0\r\n\r\n", "501", "send chunked alone, and gzip"),
    (request_bytes(b'{"input": "' + b"a" * 200_000 + b'"}'), "413", "larger than 100000 bytes"),
    # Unusual, but allowed.
    (b"\r\n\r\n" + LAST_REQUEST, "200", ""),
    (b"GET http://x/livez HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", "200", ""),
    (b"GET http://x HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", "200", ""),  # an empty path is /
    (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", "204", ""),
    (b"GET /livez HTTP/1.0\r\n\r\n", "200", ""),
    # Expect: status 100 before the body is read; a body over the limit is refused before it is sent.
    (HEAD + CLOSE + EXPECT + LENGTH + BODY, "100 200", ""),
    (HEAD.replace(b"1.1", b"1.0") + EXPECT + LENGTH + BODY, "200", ""),
    (HEAD + EXPECT + b"Content-Length: 100001\r\n\r\n", "413", "larger than 100000 bytes"),
    # Pipelined requests are answered in order, also those before an invalid request.
    (REQUEST + HEAD + CLOSE + b"Content-Length: 1\r\n\r\n{", "200 400", "not valid JSON"),
    (NOT_JSON * 3 + LAST_REQUEST, "415 415 415 200", ""),  # bodies of refused requests are skipped
    (REQUEST + b"garbage\r\n\r\n", "200 400", NOT_HTTP),
    (REQUEST * 3 + b"\x00\x00", "200 200 200 400", NOT_HTTP),
    (REQUEST + HEAD + CHUNKED + b"3\r\nabc\r\nzz\r\n", "200 400", NOT_HTTP),
    (REQUEST * 2 + GET + b"\r\n", "200 200 400", NO_HOST),
    # Gzip and deflate are read, also combined; other encodings are 415, and decompression is limited.
    *((encoded(coding, GZIP), "200", "") for coding in (b"gzip", b"X-GZIP")),
    *((encoded(coding, BODY), "200", "") for coding in (b"", b"identity")),
    (encoded(b"deflate", zlib.compress(BODY)), "200", ""),
    (encoded(b"deflate", zlib.compress(BODY)[2:-4]), "200", ""),  # without zlib's frame, as some clients
    (encoded(b"deflate\r\nContent-Encoding: gzip", gzip.compress(zlib.compress(BODY), mtime=0)), "200", ""),
    *((encoded(coding, BODY), "415", ACCEPTED_ENCODINGS) for coding in (b"br", b"gzip, zstd")),
    (encoded(b"gzip", GZIP + bytes(9)), "200", ""),  # zeros after the end, as gzip accepts
    (encoded(b"gzip", GZIP + GZIP), "400", f"the body has {len(GZIP)} bytes after the end of its gzip data"),
    (encoded(b"gzip", BODY), "400", "the body is not valid gzip"),
    (encoded(b"gzip", GZIP[:-9]), "400", "the gzip data of the body is incomplete"),
    (encoded(b"gzip", gzip.compress(b" " * 50_000_000, mtime=0)), "413", "larger than 100000 bytes"),
]


@pytest.mark.parametrize(("sent", "statuses", "words"), HTTP_CASES, ids=range(len(HTTP_CASES)))
def test_bytes_of_http(server: Running, sent: bytes, statuses: str, words: str) -> None:
    """Each request is answered in order, and invalid bytes get an error in OpenAI's form."""
    answer = server.talk(sent).decode()

    assert statuses.split() == re.findall(r"HTTP/1\.1 (\d+)", answer)
    assert words in answer
    if statuses[-3] in "45":
        error = json.loads(answer.rpartition("\r\n\r\n")[2])["error"]
        assert {"message", "type", "param", "code"} == error.keys()


def test_writes_are_joined() -> None:
    """Head and body are sent in one piece; a write that stays alone is sent soon, or at close."""
    sent: list[bytes] = []

    async def answer() -> None:
        transport = cast("asyncio.Transport", SimpleNamespace(write=sent.append, close=lambda: None))
        joined = JoinedWrites(transport, asyncio.get_running_loop())
        joined.write(b"head, ")
        joined.write(b"body")
        await asyncio.sleep(0)
        joined.write(b"100 Continue")
        await asyncio.sleep(0)
        assert sent == [b"head, body", b"100 Continue"]
        joined.write(b"the last answer")
        joined.close()

    asyncio.run(answer())
    assert sent[2:] == [b"the last answer"]


def test_clients_that_disconnect(server: Running, shipped: Embedder) -> None:
    """After fifty clients that disconnected at once the queue is empty and the next answer is correct."""
    body = json.dumps({"input": ["word " * 200] * 20}).encode()
    for _ in range(50):
        with server.connect() as connection:
            connection.sendall(request_bytes(body))

    wait_until(lambda: [0] == server.metrics("te_queue_size"), 30)
    vectors = json.loads(server.get("/embed", body=b'{"inputs": "a"}')[1])

    assert np.array_equal(shipped.encode(["a"]), np.array(vectors, np.float32))


@pytest.mark.slow
def test_slow_clients(server: Running) -> None:
    """A connection without a request is closed after 10 s; an incomplete request gets 408."""
    sent = (b"", b"GET /livez HTTP/1.1\r\n", HEAD, HEAD + LENGTH + BODY[:-1])
    started = time.monotonic()
    with ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in sent]
        for client, part in zip(clients, sent, strict=True):
            client.sendall(part)
        found = [(client.recv(4096)[9:12], round(time.monotonic() - started, -1)) for client in clients]

    assert [(b"", 10), (b"408", 10), (b"408", 10), (b"408", 30)] == found
    assert [0] == server.metrics("te_queue_size")


REFUSED_OPTIONS = """
pass one: --truncate end --auto-truncate false
API key is empty: --api-key=
has no key: --api-key-file empty
cannot listen on 192.0.2.1: --host 192.0.2.1
manifest.json: not found: --model .
this machine has: --device GPU.9
one text may have 256: --max-batch-tokens 100
each server process needs 65 of this; for the model: memory_mb=175: --memory-mb 240
Address already in use; choose another with --port: --port PORT
"""
REFUSED_WORKERS = f"""
9999 workers, but {CPUS} CPUs are available: pass --workers {CPUS} or fewer: --workers 9999
2 workers, but 1 CPUs are available: --workers 2 --threads 1
--memory-mb 480: each server process needs 65 of this; for the model: me: --workers 2 --memory-mb 480
this machine has: --workers 2 --device GPU.9
"""


@pytest.mark.parametrize(
    "case",
    [
        *REFUSED_OPTIONS.strip().splitlines(),
        *(pytest.param(case, marks=needs_two_cpus) for case in REFUSED_WORKERS.strip().splitlines()),
    ],
)
def test_refused_options(server: Running, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends with exit code 2 and one line that names the problem."""
    (tmp_path / "empty").touch()
    monkeypatch.chdir(tmp_path)
    message, _, options = case.rpartition(": ")
    call = run if "--workers 2 --" in options and "--threads" not in options else run_inline

    result = call("serve", "--port", "0", *options.replace("PORT", server.url.rpartition(":")[2]).split())

    assert (2, b"") == (result.returncode, result.stdout), result.stderr
    assert message in result.stderr.decode()
    assert b"Traceback" not in result.stderr


def test_without_the_extra() -> None:
    """The command says what to install."""
    result = python(
        "import sys; sys.modules['starlette'] = None; sys.argv = ['ov-minilm', 'serve']\n"
        "from ov_minilm.cli import main; main()"
    )

    assert 2 == result.returncode
    assert 'pip install "ov-minilm[serve]"' in result.stderr


def test_first_line_of_the_log(server: Running) -> None:
    """The line has URL (IPv6 in brackets), model, kernel and memory; a stopping server logs no line."""
    ready = json.loads(server.lines[0])["message"]
    for part in ("ready: http://127.0.0.1:", "all-MiniLM-L6-v2", "int8 on CPU", "kernel", "threads", "MB"):
        assert part in ready
    ipv6 = cast("socket.socket", SimpleNamespace(getsockname=lambda: ("::1", 80, 0, 0)))
    assert "http://[::1]:80" == url(ipv6)
    Server.report_ready(cast("Server", SimpleNamespace(should_exit=True)))  # uses no other attribute
    worker: Any = SimpleNamespace(pipe=SimpleNamespace(recv=lambda: "ready"))
    Supervisor._listen(cast("Supervisor", SimpleNamespace(_ending=True)), worker)  # uses no other attribute


def test_help_names_a_variable_for_each_option() -> None:
    """The help shows a variable for every option, such as OV_MINILM_PORT for --port."""
    text = run_inline("serve", "--help").stdout.decode()
    options = {*re.findall(r"^  (?:-\w, )?--([a-z-]+)", text, re.MULTILINE)} - {"help"}

    assert {"served-model-name", "workers", "threads", "model"} < options
    for option in options:
        assert f"envvar:OV_MINILM_{option.replace('-', '_').upper()}" in re.sub(r"\s+", "", text), option


@pytest.mark.parametrize(
    ("variable", "value", "parameter", "expected"),
    [
        ("PORT", "9009, 11434", "ports", (9009, 11434)),
        ("API_KEY", "sk-other, sk-secret", "api_key", ("sk-other", "sk-secret")),
        ("AUTO_TRUNCATE", "false", "auto_truncate", False),
        ("WORKERS", "", "workers", 1),
    ],
)
def test_environment_variables(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, parameter: str, expected: object
) -> None:
    """Commas separate lists, empty values are ignored, and options have priority over variables."""
    monkeypatch.setenv(f"OV_MINILM_{variable}", value)

    assert expected == command.make_context("serve", []).params[parameter]
    assert parameter != "ports" or (7,) == command.make_context("serve", ["--port", "7"]).params["ports"]


def test_json_log_and_keys(tmp_path: Path) -> None:
    """One line for each request with time, id and traceparent, and without texts, keys and query strings.

    The server has two ports. At SIGHUP it reads its file of keys again; a file without keys changes nothing.
    """
    client_trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    keys = tmp_path / "keys"
    keys.write_text("sk-old\n\n sk-older \n")
    options = ("--port", "0", "--log-format", "json", "--api-key-file", str(keys))
    with running(*options, OV_MINILM_API_KEY="sk-variable", OV_MINILM_NONE="1") as server:
        for body, key, trace in (
            (b'{"input": "a text that nobody else may read"}', "sk-old", client_trace),
            (b'{"inputs": "nobody"}', "sk-older", "made up"),
            (b'{"input": "nobody"}', "sk-variable", client_trace),  # the key file has priority
        ):
            given = (f"authorization: Bearer {key}", f"traceparent: {trace}", "x-request-id: mine")
            server.talk(request_bytes(body, *given, "connection: close"))
        assert 401 == server.get("/v1/models?key=sk-in-the-query")[0]
        first, second = re.findall(r"http://127\.0\.0\.1:\d+", "".join(server.lines))
        assert first != second
        for server.url in (first, second):
            assert (200, '{"status":"alive"}') == server.get("/livez")
        for content, words in (("sk-new\n", "1 keys are valid now"), ("\n", "the old keys stay valid")):
            keys.write_text(content)
            server.process.send_signal(signal.SIGHUP)
            wait_until(lambda words=words: any(words in line for line in server.lines))  # type: ignore[misc]
            assert [401, 200] == [server.get("/v1/models", key)[0] for key in ("sk-old", "sk-new")]
        assert 0 == server.stop()

    lines = [json.loads(line) for line in server.lines]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}Z", line["time"]) for line in lines)
    assert {"info", "warning", "error"} == {line["level"] for line in lines}
    requests = [line for line in lines if "status" in line]
    assert [200, 400, 401, 401, 200, 200, 401, 200, 401, 200] == [line["status"] for line in requests]
    facts = tuple(requests[0][name] for name in ("texts", "tokens", "request_id", "traceparent"))
    assert (1, 9, "mine", client_trace) == facts
    access_fields = {"client", "method", "path", "status", "ms", "texts", "tokens", "truncated", "request_id"}
    # the traceparent of this request was invalid
    assert access_fields | {"time", "level", "logger"} == requests[1].keys()
    assert "s: 10 requests, 1 texts and 9 tokens embedded" in lines[-1]["message"]
    for secret in ("sk-", "nobody", "query"):
        assert secret not in "".join(server.lines)


def test_warnings_and_an_idle_connection() -> None:
    """The log warns about a misspelt variable and about an open address without a key.

    A connection that a client's pool keeps open does not delay the shutdown.
    """
    variables = {"OV_MINILM_THREDS": "1", "OV_MINILM_AUTO_TRUNCATE": "false"}
    with running("--host", "0.0.0.0", **variables) as server, server.connect() as idle:  # noqa: S104
        assert not json.loads(server.get("/info")[1])["auto_truncate"]
        idle.sendall(REQUEST)
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        assert 0 == server.stop()
        assert time.monotonic() - started < 10

    text = "".join(server.lines)
    assert "WARNING the environment variable OV_MINILM_THREDS has no effect" in text
    assert "did you mean OV_MINILM_THREADS?" in text
    assert "WARNING no API key is set: everybody who can reach 0.0.0.0 can use this server" in text
    assert re.search(r"INFO stopped after \d+ s: 2 requests, 1 texts and 4 tokens embedded\n$", text)


@pytest.mark.parametrize(
    ("signals", "options"),
    [
        (1, ()),
        pytest.param(1, ("--workers", "2"), marks=needs_two_cpus),
        pytest.param(20, (), marks=pytest.mark.slow),
    ],
)
def test_sigterm_under_load(signals: int, options: tuple[str, ...], shipped: Embedder) -> None:
    """Sixteen busy clients get a correct answer to each request they sent, then the process exits with 0."""
    texts = [f"client {i} asks " + "again " * i for i in range(16)]

    async def load(server: Running) -> list[tuple[list[object], list[Any]]]:
        stopping = asyncio.Event()
        calls = (keep_asking(server, text, stopping, until_refused=True) for text in texts)
        clients = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.5)
        stopping.set()
        server.process.send_signal(signal.SIGTERM)
        return [await client for client in clients]

    for _ in range(signals):
        with running("--access-log", "off", *options) as server:
            answers = asyncio.run(load(server))
            assert 0 == server.process.wait(30), server.lines
        for (failures, vectors), vector in zip(answers, shipped.encode(texts), strict=True):
            assert [] == failures
            assert np.array_equal(np.array(vectors, np.float32), np.tile(vector, (len(vectors), 1)))
        assert re.search(r"stopped after .*: [1-9]\d+ requests, .* tokens embedded\n$", server.lines[-1])


def test_a_second_sigterm_stops_at_once() -> None:
    """A long request that is still running gets 503, and the server exits with 0 within 5 s."""
    long_body = json.dumps({"input": ["of very many words " * 60] * 2000}).encode()
    with running() as server, server.connect() as client:
        client.sendall(request_bytes(long_body))
        wait_until(lambda: server.metrics("te_batch_running")[0] > 0, 30)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        # two signals at once might count as one
        wait_until(lambda: any("signal 15" in line for line in server.lines))
        assert 0 == server.stop()
        assert time.monotonic() - started < 5
        assert client.recv(100).startswith(b"HTTP/1.1 503")

    assert "Traceback" not in "".join(server.lines)
