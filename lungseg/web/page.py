"""The HTML file of every page: Streamlit's own, with the base of this server's addresses.

Otherwise Streamlit's script would try the address of the page first: `/viewer/_stcore/health`, which does not exist.
The base is the folder of the page, so that a proxy may put the server below a path of its own.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BASE = '<script>window.__streamlit = { BACKEND_BASE_URL: new URL("./", window.location.href).href };</script>'
HEAD = "<head>"
OK = 200
CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})


def with_base(html: str) -> str:
    """Put the base of addresses into Streamlit's page, before its scripts."""
    return html.replace(HEAD, HEAD + BASE, 1)


class Page:
    """ASGI middleware: sends a page of ours wherever Streamlit sends its own."""

    def __init__(self, app: ASGIApp, html: str) -> None:
        """Wrap an application; `html` is the page."""
        self._app = app
        self._body = html.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; if Streamlit answers it with its page, send ours."""
        if scope["type"] != "http" or "text/html" not in Headers(scope=scope).get("accept", ""):
            await self._app(scope, receive, send)
            return
        is_page = False

        async def send_ours(message: Message) -> None:
            nonlocal is_page
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                is_page = message["status"] == OK and headers.get("content-type", "").startswith("text/html")
                if is_page:
                    for name in ("etag", "last-modified", "content-encoding"):
                        del headers[name]
                    headers["content-length"] = str(len(self._body))
                    message = {**message, "headers": headers.raw}
            elif is_page:
                if message.get("more_body", False):
                    return
                message = {**message, "body": b"" if scope["method"] == "HEAD" else self._body}
            await send(message)

        # Ours may have changed where the page on disk has not: the answer must not be "not modified".
        headers = [pair for pair in scope["headers"] if pair[0] not in CONDITIONS]
        await self._app({**scope, "headers": headers}, receive, send_ours)
