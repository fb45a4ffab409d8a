"""A proxy for a PostgreSQL that commits and dies before it answers, or that goes silent."""

import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

SOCKET = ".s.PGSQL.5432"  # the file name that clients look for in the folder HOST
CHUNK = 65536


class Proxy:
    """Passes everything on, with two exceptions.

    It cuts the connection instead of answering a COMMIT that `loses` picks. After `go_silent` it passes nothing on, and
    connections stay open, as if the host was gone.
    """

    def __init__(self, host: str) -> None:
        self.server = str(Path(host, SOCKET))
        self.directory = tempfile.TemporaryDirectory(prefix="taskapi-proxy-")
        self.host = self.directory.name
        self.loses: Callable[[int], bool] = lambda commit: False  # its argument: the number of COMMITs before
        self.commits = 0
        self.lost = 0
        self.silent: list[threading.Event] = []  # one for each connection
        self.answers = True  # whether new connections are served
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        self._listener.bind(str(Path(self.host, SOCKET)))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.directory.cleanup()

    def go_silent(self) -> None:
        """Pass nothing on, over existing and over new connections, and close none of them."""
        self.answers = False
        for connection in self.silent:
            connection.set()

    def come_back(self) -> None:
        """Serve new connections; the silent ones stay silent."""
        self.answers = True

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX)
        cutting = threading.Event()  # cut the connection in place of the next answer
        silent = threading.Event()
        if not self.answers:
            silent.set()
        self.silent.append(silent)
        with suppress(OSError), client, server:
            server.connect(self.server)
            threading.Thread(target=self._answer, args=[server, client, cutting, silent], daemon=True).start()
            while data := client.recv(CHUNK):
                if silent.is_set():
                    continue
                if b"COMMIT" in data:
                    if self.loses(self.commits):
                        cutting.set()
                    self.commits += 1
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _answer(
        self, server: socket.socket, client: socket.socket, cutting: threading.Event, silent: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(CHUNK):
                if silent.is_set():
                    continue
                if cutting.is_set():
                    self.lost += 1
                    break
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
