"""Sessions of the web application without a browser: the messages that Streamlit's page would exchange, and uploads."""

import http.client
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import psutil
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import FileURLsRequest
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from lungseg.web import resumable
from tests.uploads import metadata

BOUNDARY = "lungseg-tests-0123456789abcdef"
CHUNK_BYTES = 1024**2
PATIENCE_S = 300.0
LARGEST_MESSAGE_BYTES = 64 * 1024**2


class Session:
    """One tab on the page Cases."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self._cookie = self._ask_for_cookie()
        self._opened = ExitStack()
        self._socket = self._opened.enter_context(
            connect(
                f"ws://{self._address.netloc}/_stcore/stream",
                origin=Origin(url),
                subprotocols=[Subprotocol("streamlit")],
                additional_headers={"Cookie": self._cookie},
                max_size=LARGEST_MESSAGE_BYTES,
            )
        )
        self.id = ""
        self.zone, self.grant = "", ""
        self.texts: list[str] = []
        self._run()

    @property
    def _token(self) -> str:
        return self._cookie.partition("=")[2]

    def close(self) -> None:
        """Close the tab."""
        self._opened.close()

    def drop(self, *files: tuple[str, Path]) -> list[str]:
        """Drop NIfTI files on the page and wait until they are taken in; returns what the page then says, as HTML."""
        groups = [secrets.token_hex(16) for _ in files]
        for place, ((name, path), group) in enumerate(zip(files, groups, strict=True)):
            upload = self.begin(name, path.stat().st_size, group=group, place=str(place))
            self.append(upload, path)
        return self.report(*groups)

    def report(self, *groups: str) -> list[str]:
        """Let the page hear which uploads have arrived, as the drop zone does; returns what it then says."""
        rerun = BackMsg()
        value = json.dumps({"arrived": {"drop": secrets.token_hex(4), "groups": groups}})
        rerun.rerun_script.widget_states.widgets.add(id=self.zone, json_value=value)
        self._run(rerun)
        return self.texts

    def begin(self, name: str, size: int, **others: str) -> str:
        """Begin a resumable upload; returns its address."""
        headers = {"Upload-Length": str(size), "Upload-Metadata": metadata(name, **others)}
        answer = self._ask("POST", resumable.ADDRESS, headers)
        if answer.status != http.client.CREATED:
            raise RuntimeError(f"the upload was answered with {answer.status}")
        return urljoin(resumable.ADDRESS, str(answer.headers["Location"]))

    def arrived(self, address: str) -> int:
        """Ask how many bytes of an upload have arrived."""
        return int(self._ask("HEAD", address, {}).headers["Upload-Offset"])

    def settled(self, address: str) -> int:
        """Wait until the server has noticed that the last body broke off; returns how many bytes it then has."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            offset = self.arrived(address)
            nothing = {"Content-Type": resumable.BODY_TYPE, "Upload-Offset": str(offset), "Content-Length": "0"}
            if self._ask("PATCH", address, nothing).status == http.client.NO_CONTENT:
                return offset
            time.sleep(0.05)
        raise RuntimeError("the upload stays in use")

    @contextmanager
    def sending(self, address: str, path: Path, most: int | None = None) -> Iterator[http.client.HTTPConnection]:
        """Send what is missing of an upload, or `most` bytes of that; yields the connection, which then breaks."""
        offset, size = self.settled(address), path.stat().st_size
        headers = {"Content-Type": resumable.BODY_TYPE, "Upload-Offset": str(offset)}
        connection = self._open("PATCH", address, headers | {"Content-Length": str(size - offset)})
        left = size - offset if most is None else most
        with path.open("rb") as stream:
            stream.seek(offset)
            while left and (chunk := stream.read(min(CHUNK_BYTES, left))):
                connection.send(chunk)
                left -= len(chunk)
        yield connection
        connection.close()

    def append(self, address: str, path: Path) -> None:
        """Send what is missing of an upload."""
        with self.sending(address, path) as connection:
            answer = connection.getresponse()
            answer.read()
        if answer.status != http.client.NO_CONTENT:
            raise RuntimeError(f"the upload was answered with {answer.status}")

    def _open(self, method: str, address: str, headers: dict[str, str]) -> http.client.HTTPConnection:
        connection = self._connection()
        connection.putrequest(method, address)
        for name, value in {"Tus-Resumable": "1.0.0", resumable.GRANT: self.grant, **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection

    def _ask(self, method: str, address: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        connection = self._open(method, address, headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer

    def hand_to_streamlit(self, name: str, path: Path) -> str:
        """Upload a file as Streamlit's own uploaders do; returns the address at which it can be deleted."""
        self._send(BackMsg(file_urls_request=FileURLsRequest(request_id="f", session_id=self.id, file_names=[name])))
        (place,) = self._wait_for("file_urls_response").file_urls_response.file_urls
        status, answer = self.put(place.upload_url, name, path)
        if status != http.client.NO_CONTENT:
            raise RuntimeError(f"the upload was answered with {status}: {answer[:200]!r}")
        return str(place.delete_url)

    def delete(self, address: str) -> int:
        """Delete what was handed to Streamlit; returns the status."""
        connection = self._connection()
        connection.request("DELETE", address, headers={"Cookie": self._cookie, "X-Xsrftoken": self._token})
        status = connection.getresponse().status
        connection.close()
        return status

    def put(self, address: str, name: str, path: Path) -> tuple[int, bytes]:
        """Send a file to an address for uploads, as a browser does; returns status and answer."""
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{BOUNDARY}--\r\n".encode()
        connection = self._connection()
        connection.putrequest("PUT", address)
        connection.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
        connection.putheader("Content-Length", str(len(head) + path.stat().st_size + len(tail)))
        connection.putheader("Cookie", self._cookie)
        connection.putheader("X-Xsrftoken", self._token)
        connection.endheaders(head)
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                connection.send(chunk)
        connection.send(tail)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content

    def _run(self, message: BackMsg | None = None) -> None:
        """Run the page and wait until it says no more: a run that asks for another one is followed by that."""
        if message is None:
            message = BackMsg()
            message.rerun_script.SetInParent()
        self._send(message)
        self.texts = []
        while True:
            finished = self._wait_for("script_finished").script_finished
            if finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                return
            if finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                raise RuntimeError(f"the run of the page ended with {finished}")
            self.texts = []

    def _wait_for(self, kind: str) -> ForwardMsg:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            message = ForwardMsg()
            message.ParseFromString(self._socket.recv(deadline - time.monotonic(), decode=False))
            self._note(message)
            if message.WhichOneof("type") == kind:
                return message

    def _note(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self.id = message.new_session.initialize.session_id
        elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
            element = message.delta.new_element
            if element.WhichOneof("type") == "bidi_component" and "drop_zone" in element.bidi_component.component_name:
                self.zone = element.bidi_component.id
                self.grant = json.loads(element.bidi_component.json)["grant"]
            elif element.WhichOneof("type") == "html":
                self.texts.append(element.html.body)

    def _send(self, message: BackMsg) -> None:
        self._socket.send(message.SerializeToString())

    def _ask_for_cookie(self) -> str:
        """Ask for the cookie that a form has to show."""
        connection = self._connection()
        connection.request("GET", "/_stcore/health")
        answer = connection.getresponse()
        answer.read()
        connection.close()
        found = re.search(r"_streamlit_xsrf=[^;]+", answer.headers.get("Set-Cookie", ""))
        if found is None:
            raise RuntimeError("the server gave no cookie")
        return found.group()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=PATIENCE_S)


def web_process() -> psutil.Process:
    """Find the web process that this process has started."""
    return next(process for process in psutil.Process().children() if "streamlit" in process.cmdline())


@contextmanager
def peak_rss(process: psutil.Process, every_s: float = 0.02):
    """Watch the memory of a process; yields a list whose only entry is the highest figure, in MB."""
    highest, is_over = [0.0], threading.Event()

    def watch() -> None:
        while not is_over.wait(every_s):
            highest[0] = max(highest[0], rss_mb(process))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield highest
    is_over.set()
    thread.join()


def rss_mb(process: psutil.Process) -> float:
    """Return the memory of a process in MB."""
    return float(process.memory_info().rss / 1024**2)


def write_noise(path: Path, megabytes: int, head: bytes = b"") -> Path:
    """Write a file that can't be compressed, after a head."""
    with path.open("wb") as stream:
        stream.write(head)
        for _ in range(megabytes):
            stream.write(os.urandom(CHUNK_BYTES))
    return path
