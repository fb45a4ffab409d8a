"""A TCP port that leads to one server, and later to another: as a name after a failover."""

import socket
import threading
from contextlib import suppress
from typing import Self

CHUNK = 65536


class Relay:
    """Passes connections on to a server. `lead_to` changes the server of new connections; the old ones stay."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def lead_to(self, port: int) -> None:
        self._target = port

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target)) as server:
            answering = threading.Thread(target=pass_on, args=[server, client], daemon=True)
            answering.start()
            pass_on(client, server)
            answering.join()


def pass_on(source: socket.socket, sink: socket.socket) -> None:
    """Pass everything on until one of the two ends; then end both."""
    with suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
