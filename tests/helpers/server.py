"""A real HTTP server on the loopback address, which fails on demand."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server serves, how it misbehaves, and which requests it received."""

    files: dict[str, bytes]
    faults: list[str] = field(default_factory=list)  # each request of a file uses up one
    ranges: bool = True
    etag: str = '"v1"'
    pause: float = 0.0  # seconds before each 64 KiB
    requests: list[dict] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)  # bytes of bodies, by path
    parts: list[tuple[str, int, int]] = field(default_factory=list)  # path, start, bytes sent
    root: str = ""

    @property
    def url(self) -> str:
        """The address of the first file."""
        return self.root + next(iter(self.files))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        site: Site = self.server.site
        site.requests.append({"path": self.path, **self.headers})
        content = site.files.get(self.path.replace("/moved", ""))
        if content is None:
            return self.answer(404)
        fault = site.faults.pop(0) if site.faults else ""
        if fault.isdigit():
            return self.answer(int(fault), b"no", Retry_After="0")
        if fault == "html":
            return self.answer(200, b"<html>blocked</html>", Content_Type="text/html")
        if fault == "redirect":
            return self.answer(302, Location=f"/moved{self.path}")
        start, stop, status = 0, len(content), 200
        asked = self.headers.get("Range")
        if asked and site.ranges and self.headers.get("If-Range", site.etag) == site.etag:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, status = int(first), 206
            stop = min(int(last) + 1, stop) if last else stop
            if start >= len(content):
                return self.answer(416)
        body = content[start:stop]
        if fault == "flip" and body:
            at = len(body) // 2
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        self.send_response(status)
        kind = "application/json" if "/api/" in self.path else "application/octet-stream"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if site.etag:
            self.send_header("ETag", site.etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        if fault in ("reset", "nothing"):
            body = body[: len(body) // 2] if fault == "reset" else b""
            self.close_connection = True
        done = 0
        try:
            for at in range(0, len(body), 1 << 16):
                if site.pause:
                    self.server.stopped.wait(site.pause)
                self.wfile.write(body[at : at + (1 << 16)])
                done += len(body[at : at + (1 << 16)])
        except OSError:
            self.close_connection = True  # the client was killed
        site.sent[self.path] = site.sent.get(self.path, 0) + done
        site.parts.append((self.path, start, done))


@contextmanager
def serving(files: dict[str, bytes]):
    """Serve files, given by their paths below `site.root`, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.stopped = threading.Event()
    server.site = Site(files, root=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.site
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
