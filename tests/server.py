"""A real HTTP server on the loopback address that can be told to fail."""

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server serves, how it misbehaves, and what it was asked."""

    content: bytes
    faults: list[str] = field(default_factory=list)  # one is used up by each request
    ranges: bool = True
    etag: str = '"v1"'
    content_type: str = "application/octet-stream"
    requests: list[dict] = field(default_factory=list)
    sent: int = 0
    url: str = ""


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
        site.requests.append(dict(self.headers))
        fault = site.faults.pop(0) if site.faults else ""
        if fault.isdigit():
            return self.answer(int(fault), b"no", Retry_After="0")
        if fault == "html":
            return self.answer(200, b"<html>blocked</html>", Content_Type="text/html")
        if fault == "redirect":
            return self.answer(302, Location="/moved")
        start = 0
        asked = self.headers.get("Range")
        unchanged = self.headers.get("If-Range", site.etag) == site.etag
        if asked and site.ranges and unchanged:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(site.content):
                return self.answer(416)
        body = site.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", site.content_type)
        self.send_header("Content-Length", str(len(body)))
        if site.etag:
            self.send_header("ETag", site.etag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/*")
        self.end_headers()
        if fault == "reset":
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)
        site.sent += len(body)


@contextmanager
def serving(content: bytes):
    """Serve `content` at `site.url` until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.site = Site(content, url=f"http://127.0.0.1:{server.server_port}/file.bin")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
