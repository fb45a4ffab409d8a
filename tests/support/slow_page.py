"""A web server on an open socket that is slow to answer: `python -m tests.support.slow_page --fd=N …`."""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket

TAKES = 0.5  # seconds for each answer: as a page that is rendered for the first time, behind others


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(TAKES)
        self.send_response(200)
        self.end_headers()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page, bind_and_activate=False)
    server.socket = socket(fileno=int(sys.argv[1].removeprefix("--fd=")))
    server.serve_forever()
