"""The network between a page and its server: a TCP proxy that can be cut, be away, and keep WebSockets out."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal, Self

CHUNK = 65536
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"  # as a WSGI server answers


class Proxy:
    """Passes on to a server what comes to it; its attributes and methods say what it does instead."""

    def __init__(self, server: int) -> None:
        self.server = server  # its port
        self.away = False  # connections end as they come
        self.upgrades: Literal["passed", "refused", "swallowed"] = "passed"  # what becomes of a WebSocket's handshake
        self.handshakes = 0  # of WebSockets, that have come
        self.websockets: set[socket.socket] = set()  # that it carries now
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._clients: set[socket.socket] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def cut(self) -> None:
        """End every connection, without a word of the protocol that it carries."""
        with self._lock:
            for client in self._clients:
                _end(client)

    def leave(self) -> None:
        """Be away, for the connections that there are as well."""
        self.away = True
        self.cut()

    def come_back(self) -> None:
        self.away = False

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, self._kept(client):
            request = b"" if self.away else client.recv(CHUNK)
            if b"upgrade: websocket" in request.lower():
                self._serve_websocket(request, client)
            elif request:
                self._pass_on(request, client)

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
        with socket.create_connection(("127.0.0.1", self.server)) as server:
            server.sendall(request)
            threading.Thread(target=_pump, args=[server, client], daemon=True).start()
            _pump(client, server)

    @contextmanager
    def _kept(self, client: socket.socket) -> Iterator[None]:
        """Lets `cut` find it, as long as it is open."""
        with self._lock:
            self._clients.add(client)
        try:
            yield
        finally:
            with self._lock:
                self._clients.remove(client)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass everything on until either ends; then end both."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    _end(source)
    _end(sink)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended already
        connection.shutdown(socket.SHUT_RDWR)
