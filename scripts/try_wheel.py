"""Use an installed package as its users would, without a network.

`python -I try_wheel.py encode` needs only the package; `python -I try_wheel.py serve` also needs the extra
`serve`. Python refuses connections to other machines. scripts/smoke-wheel also cuts off the network where
that is possible.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import urllib.request

START_S = 120.0  # time limit for the start of the server, which compiles all grids
STOP_S = 30.0
TEXTS = ["a man plays the guitar", "someone is playing guitar", "the stock market fell"]
OFFLINE = """
import sys
def refuse(event, arguments):
    local = event == "socket.connect" and arguments[1][0] in ("127.0.0.1", "::1")
    if event in ("socket.connect", "socket.getaddrinfo") and not local:
        raise RuntimeError(f"{event} {arguments[-1]}: nothing here may use the network")
sys.addaudithook(refuse)
"""
SERVE = f"""{OFFLINE}
sys.argv = ["ov-minilm", "serve", "--port", "0"]
from ov_minilm.cli import main
main()
"""


def encode() -> None:
    """Encode three texts, and check that the two with the same meaning are the closest."""
    exec(OFFLINE)  # noqa: S102  # our own code, as in the server's process
    from ov_minilm import __version__, encode

    check([[float(x) for x in row] for row in encode(TEXTS)])
    print(f"ov_minilm {__version__} encodes")


def serve() -> None:
    """Start the server, request the vectors over HTTP, and stop the server with a signal."""
    raise_loopback()
    with subprocess.Popen(
        [sys.executable, "-I", "-c", SERVE], stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as server:
        try:
            line = next((line for line in server.stderr or () if "http://" in line), "")
            if not line:
                raise RuntimeError(f"the server did not start: exit code {server.wait(STOP_S)}")
            url = next(word for word in line.split() if word.startswith("http://"))
            body = json.dumps({"model": "all-MiniLM-L6-v2", "input": TEXTS}).encode()
            request = urllib.request.Request(  # noqa: S310  # the URL is on this machine
                f"{url.removesuffix('/')}/embeddings", body, {"content-type": "application/json"}
            )
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=START_S) as answer:
                check([item["embedding"] for item in json.load(answer)["data"]])
        finally:
            server.terminate()
            server.communicate(timeout=STOP_S)
    print(f"ov_minilm serves on {url}, and ends with exit code {server.returncode}")


def check(vectors: list[list[float]]) -> None:
    """Raise RuntimeError for vectors of another shape or with other neighbours."""
    first, similar, unrelated = vectors
    cosines = [sum(a * b for a, b in zip(first, other, strict=True)) for other in (similar, unrelated)]
    if len(first) != 384 or not cosines[0] > 0.7 > 0.3 > cosines[1]:
        raise RuntimeError(f"wrong vectors: {len(first)} components, cosines {cosines}")


def raise_loopback() -> None:
    """Bring the loopback device up; in a new network namespace it is down, and no server can listen."""
    if sys.platform != "linux":
        return
    import fcntl

    get, put, up = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS and IFF_UP of Linux
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = fcntl.ioctl(any_socket, get, struct.pack("16sh22x", b"lo", 0))
        current = struct.unpack("16sh22x", flags)[1]
        if not current & up:
            fcntl.ioctl(any_socket, put, struct.pack("16sh22x", b"lo", current | up))


if __name__ == "__main__":
    {"encode": encode, "serve": serve}[sys.argv[1]]()
