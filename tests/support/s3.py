"""An S3 server on this machine, and a proxy before it that does to answers what networks do."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from scvae_data.remote import objects

SECRETS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
FAULTS = ("reset", "timeout", "503", "short", "flip")
TIMEOUT_SECONDS = 1
NO_ANSWER = {
    "501": b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "503": b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}
Fault = Callable[[bytes], str | None]
"""Given a request, what goes wrong with it; None for nothing."""


@contextmanager
def s3_server() -> Iterator[int]:
    """The port of an empty server with a bucket ``data``; what it holds is gone afterwards."""
    with server("moto.server", "-H", "127.0.0.1", "-p") as port:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/data", method="PUT")
        urllib.request.urlopen(request).close()
        yield port


@contextmanager
def server(module: str, *arguments: str) -> Iterator[int]:
    """The port of a server that a module starts, once it answers; arguments end with how the port is given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, *arguments, str(port)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    try:
        for _ in range(600):
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def lead_to(port: int, patch: pytest.MonkeyPatch) -> None:
    """Ask a server, or a proxy before it, from now on, and do not wait for it as long as for one far away."""
    for name, value in {**SECRETS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
        patch.setenv(name, value)
    patch.setitem(objects.TIMEOUTS, "read_timeout", TIMEOUT_SECONDS)
    patch.setattr(objects, "BACK_OFF_SECONDS", 0.01)
    objects.store_of.cache_clear()


def environment(port: int, home: Path) -> dict[str, str]:
    """For a program of its own that asks a server, or a proxy before it, with nothing that is the user's."""
    passed_on = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "NUMBA_CACHE_DIR") if name in os.environ}
    here = {"HOME": str(home), "OMP_NUM_THREADS": "1", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    return {**passed_on, **SECRETS, **here}


class Proxy:
    """Passes requests on to a server, one a connection, and spoils the answers that ``fault`` says.

    Parameters
    ----------
    port
        Of the server.
    fault
        Decides over each request.
    """

    def __init__(self, port: int, fault: Fault) -> None:
        self._server = ("127.0.0.1", port)
        self.fault = fault
        self.injected: list[str] = []
        self.sent_bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            request = received(client)
            if not request:
                return
            fault = self.fault(request)
            if fault:
                self.injected.append(fault)
            if fault == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            if fault in NO_ANSWER:
                client.sendall(NO_ANSWER[fault])
                return
            with socket.create_connection(self._server) as server:
                server.sendall(closing(request))
                answer = b"".join(iter(lambda: server.recv(1 << 20), b""))
            head, _, body = answer.partition(b"\r\n\r\n")
            if fault == "timeout":
                time.sleep(1.5 * TIMEOUT_SECONDS)
                return
            if fault == "short" and len(body) > 1:
                body = body[: len(body) // 2]
            if fault == "flip" and body:
                at = len(body) // 3
                body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
            self.sent_bytes += len(body)
            client.sendall(head + b"\r\n\r\n" + body)


def closing(request: bytes) -> bytes:
    """The request, so that the server closes the connection after its answer."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"expect:"))]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body


def received(client: socket.socket) -> bytes:
    """A whole request; empty if the client leaves."""
    content = b""
    while b"\r\n\r\n" not in content:
        if not (more := client.recv(1 << 20)):
            return b""
        content += more
    head, _, body = content.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if fields.get(b"expect", b"").strip() == b"100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    n_bytes = int(fields.get(b"content-length", b"0"))
    chunked = b"chunked" in fields.get(b"transfer-encoding", b"")
    while len(body) < n_bytes or (chunked and not body.endswith(b"0\r\n\r\n")):
        if not (more := client.recv(1 << 20)):
            return b""
        body += more
    return head + b"\r\n\r\n" + body


def every(n: int, kinds: tuple[str, ...] = FAULTS, *, of: bytes = b"GET ") -> Fault:
    """Each ``n``-th request of a method goes wrong, in turns by each of ``kinds``."""
    requests, turns, lock = itertools.count(1), itertools.cycle(kinds), threading.Lock()

    def fault(request: bytes) -> str | None:
        if not request.startswith(of):
            return None
        with lock:
            return next(turns) if next(requests) % n == 0 else None

    return fault
