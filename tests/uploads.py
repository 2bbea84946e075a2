"""Uploads by tus without a network: requests at the routes, as a browser with a page of the server sends them."""

import asyncio
import base64
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette

from lungseg.web import resumable

GROUP = "a" * 32


def metadata(name: str, group: str = GROUP, count: str = "1", place: str = "0", part: str = "0") -> str:
    """Write the header Upload-Metadata."""
    fields = {"filename": name, "group": group, "count": count, "place": place, "part": part}
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in fields.items())


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def error(self) -> dict[str, str]:
        return dict(json.loads(self.body))


class Browser:
    """A browser that has a page of the server."""

    def __init__(self, settings):
        self.settings = settings
        self.app = Starlette(routes=resumable.upload_routes(settings))
        self.headers = {"tus-resumable": "1.0.0", resumable.GRANT: resumable.upload_grant(settings)}

    def create(self, size: object, name="scan.nii.gz", **others: str) -> Answer:
        return self.ask("POST", "", {"upload-length": str(size), "upload-metadata": metadata(name, **others)})

    def begin(self, size: object, name="scan.nii.gz", **others: str) -> str:
        """Create an upload; returns its id."""
        answer = self.create(size, name, **others)
        assert answer.status == 201, answer.body
        return answer.headers["location"].removeprefix("uploads/")

    def patch(self, upload_id: str, offset: object, *chunks: bytes, breaks_off=False, **headers: str) -> Answer:
        return self.stream(upload_id, offset, chunks, breaks_off=breaks_off, **headers)

    def stream(
        self, upload_id: str, offset: object, chunks: Iterable[bytes], *, breaks_off=False, **headers: str
    ) -> Answer:
        """Send a body chunk by chunk; after a break the server hears that the browser is gone."""
        kind = {"content-type": resumable.BODY_TYPE, "upload-offset": str(offset)}
        sent = kind | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("PATCH", f"/{upload_id}", sent, chunks, breaks_off=breaks_off)

    def whole(self, content: bytes, name="scan.nii.gz", **others: str) -> str:
        """Upload all of a content; returns the id."""
        upload_id = self.begin(len(content), name, **others)
        assert self.patch(upload_id, 0, content).status == 204
        return upload_id

    def head(self, upload_id: str) -> Answer:
        return self.ask("HEAD", f"/{upload_id}", {})

    def delete(self, upload_id: str) -> Answer:
        return self.ask("DELETE", f"/{upload_id}", {})

    def ask(
        self, method: str, end: str, headers: dict[str, str], chunks: Iterable[bytes] = (), *, breaks_off=False
    ) -> Answer:
        with ThreadPoolExecutor() as thread:  # where no loop runs yet: a browser test may have left one in this thread
            return thread.submit(
                lambda: asyncio.run(self._ask(method, end, self.headers | headers, chunks, breaks_off))
            ).result()

    async def _ask(self, method, end, headers, chunks, breaks_off) -> Answer:
        answer, coming = Answer(), iter(chunks)

        async def receive() -> dict[str, Any]:
            chunk = next(coming, None)
            if chunk is not None:
                return {"type": "http.request", "body": chunk, "more_body": True}
            return {"type": "http.disconnect"} if breaks_off else {"type": "http.request", "body": b""}

        async def send(message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            answer.body += message.get("body", b"")

        path = resumable.ADDRESS + end
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "scheme": "http",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            "root_path": "",
        }
        await self.app(scope, receive, send)
        return answer
