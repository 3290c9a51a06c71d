"""A web server for tests: pages, redirects, and everything that may go wrong with them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANCHOR = "sqlalchemy.orm.selectinload"
SPHINX = f"""\
<!DOCTYPE html><html><head><title>no part of it</title><style>p {{}}</style></head><body>
<nav>Menu <a href="#x">{ANCHOR}</a></nav>
<main><h1>Relationship Loading</h1><p>Not this paragraph.
<dl class="py function">
<dt id="{ANCHOR}">function <b>selectinload</b>(<em>*keys</em>)<a class="headerlink">¶</a></dt>
<dd><p>Load with SELECT&nbsp;IN &amp; friends.</p>
<ul><li>one<li>two</ul>
<pre>select(Jar)
    .options(selectinload(Jar.lid))</pre>
<script>track()</script></dd>
<dt id="sqlalchemy.orm.subqueryload">function subqueryload()</dt>
<dd>Another entry.</dd></dl></main></body></html>
"""
MKDOCS = """\
<html><body><article><h1>Dependencies</h1><h2 id="fastapi.Depends">Depends</h2>
<div><p>Declare a dependency.</p><table><tr><td>scope<td>when it ends</table></div>
<h3>Example</h3><p>Of it.</p><h2 id="fastapi.Security">Security</h2><p>Other.</p></article></body>
"""


class Handler(BaseHTTPRequestHandler):
    server: "Server"

    def do_GET(self) -> None:  # noqa: C901  (a branch for each way to fail)
        self.server.asked.append(self.path)
        mode = self.server.mode
        if mode == "hang":
            self.server.released.wait(60)
        elif mode == "drip":
            self.answer(200, b"", {"Content-Length": "1000000"})
            while not self.server.released.wait(0.1):
                try:
                    self.wfile.write(b" ")
                    self.wfile.flush()
                except OSError:
                    return
        elif mode == "loop":
            self.answer(302, b"", {"Location": self.path})
        elif mode == "chain":
            number = int(self.path.rpartition("hop=")[2] or 0) if "hop=" in self.path else 0
            self.answer(302, b"", {"Location": f"/page?hop={number + 1}"})
        elif mode == "moved" and "moved" not in self.path:
            self.answer(301, b"", {"Location": "/moved.html"})
        elif mode == "elsewhere":
            self.answer(302, b"", {"Location": self.server.elsewhere})
        elif mode == "huge":
            self.huge()
        elif mode == "404":
            self.answer(404, b"<html>nothing here</html>", {})
        else:
            self.answer(200, self.server.page.encode(), {"Content-Type": self.server.kind})

    def answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "text/html", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def huge(self) -> None:
        self.answer(200, b"<html><body>", {})
        try:
            for _ in range(30):
                self.wfile.write(b"<p>jam</p>" * 100_000)
        except OSError:  # the client has had enough
            return

    def log_request(self, *_: object) -> None:
        """Keep the output of the tests clean."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    mode = ""
    page = SPHINX
    kind = "text/html; charset=utf-8"
    elsewhere = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def web_server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
