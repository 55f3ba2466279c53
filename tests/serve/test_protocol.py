"""HTTP as RFC 9110 and RFC 9112 have it, byte by byte, against a real server."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import socket
import subprocess
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.serving import Running, running

BODY = json.dumps({"input": "one text", "model": "m"}).encode()
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKS = b"3;name=value\r\n%b\r\n%x\r\n%b\r\n0\r\nTrailer: y\r\n\r\n" % (BODY[:3], len(BODY) - 3, BODY[3:])
CLOSE = b"Connection: close\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
ASK = HEAD + LENGTH + BODY
LAST = HEAD + CLOSE + LENGTH + BODY


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server with a small body limit."""
    with running("--payload-limit", "100000", "--access-log", "off") as server:
        yield server


def _connect(server: Running) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def _statuses(server: Running, *pieces: bytes) -> list[int]:
    """Send pieces one after the other and return the statuses until the server closes."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", _talk(server, *pieces))]


def _talk(server: Running, *pieces: bytes) -> bytes:
    with _connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


OFFERS = {
    "h2c": H2C,
    "tls": b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "several": b"Upgrade: h2c, foo/2\r\nConnection: keep-alive, upgrade\r\n",
    "no Connection": b"Upgrade: h2c\r\n",
    "two Connections": b"Connection: keep-alive\r\nConnection: upgrade\r\nUpgrade: h2c\r\n",
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize(
    "pieces",
    [
        (LENGTH + BODY,),
        (LENGTH, BODY),
        (CHUNKED + CHUNKS,),
        (CHUNKED, CHUNKS),
        (CHUNKED + CHUNKS[:20], CHUNKS[20:]),
    ],
    ids=["length", "length, two pieces", "chunked", "chunked, two pieces", "chunked, cut"],
)
def test_an_offer_to_upgrade_is_ignored(server: Running, offer: bytes, pieces: tuple[bytes, ...]) -> None:
    """RFC 9110, 7.8: the request is answered as without the offer, and the connection goes on."""
    first, *others = pieces

    assert [200, 200] == _statuses(server, HEAD + offer + first, *others, LAST)


def test_offers_in_a_pipe_and_in_single_bytes(server: Running) -> None:
    """Five requests with offers at once, one whose bytes come one by one, one without body."""
    offered = HEAD + H2C + LENGTH + BODY
    single = [bytes([byte]) for byte in offered]
    get = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + H2C + b"\r\n"

    assert [200] * 8 == _statuses(server, offered * 5, *single, get + LAST)


def test_an_offer_may_end_the_connection(server: Running) -> None:
    """`Connection: close, Upgrade` still closes."""
    offer = b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n"

    assert [200] == _statuses(server, HEAD + offer + LENGTH + BODY)


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        (
            ["curl", "--http2", "-sS", "-f", "-H", "content-type: application/json", "-d", BODY.decode()],
            "curl",
        ),
        (
            [
                "curl",
                "-sS",
                "-f",
                "-H",
                "content-type: application/json",
                "-H",
                "expect: 100-continue",
                "-d",
                BODY.decode(),
            ],
            "curl",
        ),
        (["java", str(Path(__file__).with_name("EmbedOnce.java"))], "java"),
    ],
    ids=["curl --http2", "curl, expect", "java"],
)
def test_stock_clients_that_offer_http2(server: Running, command: list[str], needs: str) -> None:
    """`curl --http2` and the JDK's HttpClient, as they come, get a vector."""
    if not shutil.which(needs):
        pytest.skip(f"no {needs} on this machine")

    done = subprocess.run(
        [*command, f"{server.url}/v1/embeddings"], capture_output=True, check=False, timeout=120
    )

    assert 0 == done.returncode, done.stderr
    assert 384 == len(json.loads(done.stdout)["data"][0]["embedding"])


def test_a_client_that_expects_to_go_on_is_told_to(server: Running) -> None:
    """100 before the body, then the answer; a body that is too large is refused before it is sent."""
    expect = b"Expect: 100-Continue\r\n"

    assert [100, 200] == _statuses(server, HEAD + CLOSE + expect + LENGTH, BODY)
    assert [413] == _statuses(server, HEAD + expect + b"Content-Length: 100001\r\n\r\n")
    assert [200] == _statuses(server, HEAD.replace(b"1.1", b"1.0") + expect + LENGTH, BODY)


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
            505,
            "configure the client for HTTP/1.1",
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "a URL that begins with http://"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405, "not a proxy"),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400, "exactly one Host header"),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "exactly one Host header"),
        (b"GET livez HTTP/1.1\r\nHost: a\r\n\r\n", 400, "Invalid characters in url"),
        (b"GET ftp://x/livez HTTP/1.1\r\nHost: a\r\n\r\n", 400, "must begin with /"),
        (HEAD + CHUNKED + b"zz\r\n", 400, "not an HTTP/1.1 request"),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc", 400, "Transfer-Encoding"),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400, "Content-Length"),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\nabc", 400, "Transfer-Encoding"),
    ],
)
def test_what_is_not_http_is_refused(server: Running, sent: bytes, status: int, said: str) -> None:
    """Each gets one answer in the shape of every other error, which says what to do, and is closed."""
    head, _, body = _talk(server, sent).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert said in json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"\r\n\r\n" + LAST, [200]),
        (b"GET http://x/livez HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", [200]),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n", [204]),
        (b"GET /livez HTTP/1.0\r\n\r\n", [200]),
        (ASK + b"garbage\r\n\r\n", [200, 400]),
        (ASK * 3 + b"\x00\x00", [200, 200, 200, 400]),
        (ASK + HEAD + CHUNKED + b"3\r\nabc\r\nzz\r\n", [200, 400]),
        (ASK * 2 + b"GET /livez HTTP/1.1\r\n\r\n", [200, 200, 400]),
    ],
)
def test_answers_come_in_order(server: Running, sent: bytes, expected: list[int]) -> None:
    """Requests in a pipe come before the refusal of what is wrong after them; legal oddities are taken."""
    assert expected == _statuses(server, sent)


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("gzip", gzip.compress(BODY, mtime=0), 200),
        ("x-gzip", gzip.compress(BODY, mtime=0), 200),
        ("GZIP", gzip.compress(BODY, mtime=0), 200),
        ("deflate", zlib.compress(BODY), 200),
        ("deflate", zlib.compress(BODY)[2:-4], 200),  # without zlib's frame, as some clients send it
        ("deflate, gzip", gzip.compress(zlib.compress(BODY), mtime=0), 200),
        ("", BODY, 200),
        ("identity", BODY, 200),
        ("br", BODY, 415),
        ("gzip, zstd", BODY, 415),
        ("gzip", BODY, 400),
        ("gzip", gzip.compress(BODY, mtime=0)[:-9], 400),
        ("gzip", gzip.compress(b" " * 50_000_000, mtime=0), 413),
    ],
)
def test_content_codings(server: Running, coding: str, body: bytes, status: int) -> None:
    """Gzip and deflate are read, also twice; others are 415 with those that are read; bombs do not go off."""
    head = HEAD + CLOSE + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(body))

    answer = _talk(server, head + body)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (status == 415) == (b"\r\naccept-encoding: gzip, deflate\r\n" in answer)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status"), [(b"", None), (HEAD, 408), (HEAD + LENGTH, 408)], ids=["nothing", "head", "body"]
)
def test_a_slow_request_is_told_so(server: Running, sent: bytes, status: int | None) -> None:
    """A connection without a request closes in silence; one that stops within a request hears 408."""
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(_talk_long(server, sent)))
    thread.start()
    thread.join(60)

    assert [b"HTTP/1.1 408" if status else b""] == [answer[:12] for answer in found]


def _talk_long(server: Running, sent: bytes) -> bytes:
    with _connect(server) as connection:
        connection.settimeout(50)
        connection.sendall(sent)
        return connection.recv(4096)
