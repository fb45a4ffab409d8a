"""The network between a page and its server: a TCP proxy that can be slow, stall, cut, refuse, and answer itself.

A changed attribute also applies to open connections, from their next bytes on.
"""

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal, Self

CHUNK = 65536
# Bytes that the system may buffer for a connection: few, so that its other end feels a slow or stalled proxy.
BUFFER = 65536
RESET = struct.pack("ii", 1, 0)
PATIENCE = 0.01  # seconds between two looks whether a stall is over
TICK = 0.05  # seconds: a slow connection passes on the bytes of so long at once


def answer(status: str, content_type: str, body: str, *headers: str) -> bytes:
    """An answer of a stranger between the page and the server."""
    content = body.encode()
    head = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*head, "Connection: close", "", ""]).encode() + content


NOT_FOUND = answer("404 Not Found", "text/html", "")  # as a WSGI server answers the handshake of a WebSocket
PORTAL = answer("200 OK", "text/html", "<!doctype html><title>Welcome to our hotel</title>")
RELOADING = answer("404 Not Found", "text/plain", "404 page not found\n")
FORBIDDEN = answer("403 Forbidden", "text/html", "<h1>This address is blocked</h1>")
BAD_GATEWAY = answer("502 Bad Gateway", "text/html", "<h1>502 Bad Gateway</h1>")
TOO_LARGE = answer("413 Request Entity Too Large", "text/html", "<h1>413 Request Entity Too Large</h1>")
NO_PROXY_LOGIN = answer("407 Proxy Authentication Required", "text/html", "", "Proxy-Authenticate: Basic")
OTHER_JSON = answer("404 Not Found", "application/json", '{"error": {"code": 404, "message": "no route"}}')
LOGIN_PAGE = answer("302 Found", "text/html", "", "Location: /login/")
STRANGERS = {
    "a portal": PORTAL,
    "404 in plain text": RELOADING,
    "403 in HTML": FORBIDDEN,
    "502": BAD_GATEWAY,
    "413": TOO_LARGE,
    "404 in JSON of another kind": OTHER_JSON,
    "a redirect to a login page": LOGIN_PAGE,
}


class Proxy:
    """Passes everything on to a server, unless its attributes say otherwise.

    Each HTTP request has its own connection, so that a change applies to the next request.
    """

    def __init__(self, server: int) -> None:
        self.server = server  # its port
        self.away = False  # new connections are closed at once
        self.upgrades: Literal["passed", "refused", "swallowed"] = "passed"  # a WebSocket's handshake is
        self.delay = 0.0  # seconds, each way
        self.rate: float | None = None  # bytes per second, for each connection and direction
        self.stalled: Literal["up", "down", "both"] | None = None  # connections stay open, but nothing passes
        # Gives the answer to a request or handshake with that first line; None: the server answers
        self.stranger: Callable[[str], bytes | None] = lambda _line: None
        self.requests: list[str] = []  # the first lines of all requests but handshakes
        self.handshakes = 0  # of WebSockets, so far
        self.websockets: set[socket.socket] = set()  # those that are open
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._clients: set[socket.socket] = set()
        self._cut: set[socket.socket] = set()  # of them: what they have sent and is not passed on yet is lost
        self._lock = threading.Lock()
        self._closed = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._listener.close()
        self.cut()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    @property
    def connections(self) -> int:
        """How many are open, other than WebSockets."""
        with self._lock:
            return len(self._clients - self.websockets)

    def cut(self) -> None:
        """End every connection, without the closing words of its protocol."""
        with self._lock:
            self._cut |= self._clients
            for client in self._clients:
                # a reset follows, once it is closed: a browser that sends would not notice the end alone
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                _end(client)

    def cut_websockets(self) -> None:
        """End the open WebSockets, and no requests."""
        for client in list(self.websockets):
            _end(client)

    def leave(self) -> None:
        """Close all connections, and new ones at once."""
        self.away = True
        self.cut()

    def come_back(self) -> None:
        self.away = False

    def replace(self, answer: bytes, pattern: str = " /tasks/") -> None:
        """From now on, give `answer` to requests whose first line contains `pattern` (such as "POST /tasks/")."""
        self.stranger = lambda line: answer if re.search(pattern, line) else None

    def replace_nothing(self) -> None:
        """Let the server answer everything again."""
        self.stranger = lambda _line: None

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, self._kept(client):
            request = b"" if self.away else _head(client)
            line = request.split(b"\r\n", 1)[0].decode("latin1")
            is_websocket = b"\r\nupgrade: websocket" in request.lower()
            if request and not is_websocket:
                self.requests.append(line)
            if request and (strange := self.stranger(line)) is not None:
                self.handshakes += is_websocket
                _drain(request, client)
                client.sendall(strange)
            elif is_websocket:
                self._serve_websocket(request, client)
            elif request:
                self._pass_on(_last_of_its_connection(request), client)

    def _serve_websocket(self, request: bytes, client: socket.socket) -> None:
        self.handshakes += 1
        if self.upgrades == "refused":
            client.sendall(NOT_FOUND)
        elif self.upgrades == "swallowed":
            client.recv(CHUNK)  # until the client gives up
        else:
            self.websockets.add(client)
            try:
                self._pass_on(request, client)
            finally:
                self.websockets.remove(client)

    def _pass_on(self, request: bytes, client: socket.socket) -> None:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            server.connect(("127.0.0.1", self.server))
            threading.Thread(target=self._pump, args=[server, client, "down"], daemon=True).start()
            self._pump(client, server, "up", request)

    def _pump(self, source: socket.socket, sink: socket.socket, way: str, first: bytes = b"") -> None:
        """Pass everything on until either ends; then end both."""
        with suppress(OSError):
            data = first or source.recv(CHUNK)
            while data and source not in self._cut:
                time.sleep(self.delay)
                self._send(data, sink, way)
                data = source.recv(CHUNK)
        _end(source)
        _end(sink)

    def _send(self, data: bytes, sink: socket.socket, way: str) -> None:
        """Pass the bytes on at the present rate, when no stall prevents it."""
        while data:
            while self.stalled in (way, "both") and not self._closed:
                time.sleep(PATIENCE)
            size = len(data) if self.rate is None else max(1, int(self.rate * TICK))
            sink.sendall(data[:size])
            data = data[size:]
            if self.rate is not None:
                time.sleep(TICK)

    @contextmanager
    def _kept(self, client: socket.socket) -> Iterator[None]:
        """Let `cut` find the connection while it is open."""
        with self._lock:
            self._clients.add(client)
        try:
            yield
        finally:
            with self._lock:
                self._clients.remove(client)
                self._cut.discard(client)


def _head(client: socket.socket) -> bytes:
    """The first bytes of a request, with all its headers; nothing if the client ends before."""
    request = b""
    while b"\r\n\r\n" not in request:
        data = client.recv(CHUNK)
        if not data:
            return b""
        request += data
    return request


def _drain(request: bytes, client: socket.socket) -> None:
    """Read the rest of the request's body: a client that is answered before it has sent all sees a reset."""
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    missing = (int(length[1]) if length else 0) - len(body)
    while missing > 0 and (data := client.recv(CHUNK)):
        missing -= len(data)


def _last_of_its_connection(request: bytes) -> bytes:
    """The request, changed so that the server closes the connection after the answer."""
    head, end, body = request.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close"]) + end + body


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended already
        connection.shutdown(socket.SHUT_RDWR)
