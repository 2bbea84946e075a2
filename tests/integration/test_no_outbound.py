"""The running server calls nobody and answers all the while, whatever strangers send to it."""

import http.client
import os
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
from base64 import b64encode
from contextlib import closing, contextmanager

import psutil
import pytest

from lungseg.config import CHECKOUT, Settings
from lungseg.db import open_database
from lungseg.scans import formats
from lungseg.services import cases
from lungseg.services.demo import DemoFiles
from lungseg.web.routes import bundle_address, scan_address, thumbnail_address
from tests.installations import installation_of
from tests.phantoms import write_chest
from tests.scan_files import geometry_of
from tests.web import free_port

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
NO_PROXY = ("NO_PROXY", "no_proxy")
HANGS_S = 2.0
"""Longer than the server ever stands still by itself; looking its own address up takes that long for each stranger."""
PAGES = ("", "cases", "viewer", "dataset", "training", "runs", "checkpoint")
READ = ("/_stcore/health", "/_stcore/host-config", "/_stcore/metrics", "/_stcore/agent/openapi.json", "/favicon.png")
STRANGERS = (
    "http://attacker.example", "https://attacker.example:8501", "http://10.1.2.3", "http://[2001:db8::1]", "null", "",
    "http://127.0.0.1:1", "file://", "http://", "http://localhost.attacker.example", None,
)  # fmt: skip


class Proxy(socketserver.ThreadingTCPServer):
    """A proxy that notes what it is asked for, and then says nothing, as a network without a way out does."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[bytes] = []
        self.is_over = threading.Event()


class Handler(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self):
        self.server.asked.append(self.rfile.readline())
        self.server.is_over.wait()


@pytest.fixture
def proxy():
    with Proxy() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.is_over.set()
        server.shutdown()


@pytest.fixture
def prepared(environment, small_checkpoint, proxy, monkeypatch):
    """An installation whose demo files are a phantom; child processes know the proxy, and no way around it."""
    monkeypatch.setenv("LUNGSEG_MODELS", str(small_checkpoint.parent))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", small_checkpoint.stem)
    for variable in PROXIES:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.server_address[1]}")
    for variable in NO_PROXY:
        monkeypatch.delenv(variable, raising=False)
    files = DemoFiles.of(environment)
    environment.demo.mkdir()
    lesion = write_chest(files.scan, "LPS")
    formats.write_mask(lesion, files.reference, geometry_of(files.scan))
    return environment


@pytest.fixture
def trace(tmp_path):
    """Options by which strace notes each connection that a command and its children make; none where it can't."""
    strace, noted = shutil.which("strace"), tmp_path / "connections"
    options = [strace or "", "--follow-forks", "--seccomp-bpf", "--trace=connect", "--quiet=all", f"--output={noted}"]
    can_trace = strace and subprocess.run([*options, "true"], capture_output=True, check=False).returncode == 0
    return (options if can_trace else []), noted


@pytest.fixture
def port(prepared, trace):
    """The port of a server that runs; it is ended with all that it started."""
    port = free_port()
    command = [*trace[0], sys.executable, "-m", "lungseg", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        family = []
        try:
            assert process.stdout is not None
            assert f"http://127.0.0.1:{port} " in process.stdout.readline()
            family = psutil.Process(process.pid).children(recursive=True)
            yield port
        finally:
            for member in [psutil.Process(process.pid), *family]:
                if member.is_running():
                    member.kill()


@contextmanager
def answering(port):
    """Ask for the server's health again and again; it has to answer all the while."""
    silences = []
    is_over = threading.Event()

    def ask():
        while not is_over.wait(0.1):
            try:
                assert get(port, "/_stcore/health", HANGS_S) == http.client.OK
            except (OSError, AssertionError) as error:
                silences.append(repr(error))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert silences == []


def get(port, path, timeout_s=20.0, **headers):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)) as connection:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status


def handshake(port, host, origin):
    """Ask for the pages' websocket; returns the connection, on which the answer is still to come."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    lines = [
        "GET /_stcore/stream HTTP/1.1", f"Host: {host}", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}",
        *([] if origin is None else [f"Origin: {origin}"]),
    ]  # fmt: skip
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


def first_line(connection):
    with connection, connection.makefile("rb") as stream:
        return stream.readline().split(b"\r")[0].decode()


def run_page(port, name):
    """Open a session as a browser does and let it run a page; returns when the page has been drawn."""
    client = pytest.importorskip("websockets.sync.client")
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ClientState_pb2 import ClientState
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

    address, origin = f"ws://127.0.0.1:{port}/_stcore/stream", f"http://127.0.0.1:{port}"
    with client.connect(address, origin=origin, subprotocols=["streamlit"], proxy=None, max_size=None) as stream:
        stream.send(BackMsg(rerun_script=ClientState(page_name=name)).SerializeToString())
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            received = ForwardMsg()
            received.ParseFromString(stream.recv(timeout=60))
            if received.WhichOneof("type") == "script_finished":
                assert received.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
                return
    pytest.fail(f"the page {name!r} was not drawn")


def outside(noted):
    """Return the connections to other machines that strace noted; a Unix socket or the loopback address is none."""
    lines = noted.read_text(errors="replace").splitlines() if noted.exists() else []
    inet = [line for line in lines if "AF_INET" in line]
    own = ('inet_addr("127.', 'inet_pton(AF_INET6, "::1"', 'inet_pton(AF_INET6, "::ffff:127.')
    return [line for line in inet if not any(address in line for address in own)]


def test_nobody_is_called_and_nothing_hangs(prepared, proxy, port, trace):
    own = f"127.0.0.1:{port}"
    with answering(port):
        connections = [handshake(port, own, origin) for origin in STRANGERS for _ in range(2)]
        connections += [handshake(port, f"rebound.example:{port}", f"http://rebound.example:{port}")]
        answers = [first_line(connection) for connection in connections]
        assert {answer.split()[1] for answer in answers} == {"403"}
        for path in (*(f"/{page}" for page in PAGES), *READ):
            for origin in STRANGERS[:-1]:
                assert get(port, path, Origin=origin) == 403, (path, origin)
            assert get(port, path, Host=f"rebound.example:{port}") == 421
        assert first_line(handshake(port, own, f"http://{own}")).split()[1] == "101"

        for path in (*(f"/{page}" for page in PAGES), *READ):
            assert get(port, path) == (404 if "metrics" in path or "agent" in path else 200), path
        with closing(open_database(prepared.database_url)) as database:
            (summary,) = cases.list_cases(installation_of(database))
        addresses = [scan_address(prepared, summary.case), thumbnail_address(prepared, summary.case)]
        for address in (*filter(None, addresses), bundle_address(prepared), "/lungseg/files/x"):
            assert get(port, address) in {200, 403, 404}
        for page in PAGES:
            run_page(port, page)
    assert proxy.asked == []
    assert outside(trace[1]) == []


WITHOUT_CALLS = """
import sys
from streamlit import config, net_util
from streamlit.web import bootstrap

def called():
    sys.exit("the server would ask for its own address")

net_util.get_external_ip = net_util.get_internal_ip = called
config._main_script_path = sys.argv[1]
bootstrap.load_config_options({"server_address": sys.argv[2]} if sys.argv[2] else {})
bootstrap._print_url(is_running_hello=False)
"""


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "127.0.0.1"])
def test_start_without_lungseg_serve_asks_nobody_for_its_address(address, tmp_path, environment):
    """What `streamlit run app.py` prints, from any folder and for any address that it may listen on."""
    command = [sys.executable, "-c", WITHOUT_CALLS, str(CHECKOUT / "app.py"), address]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert "http://127.0.0.1:8501" in result.stdout


def test_pages_of_other_origins_can_not_steer_this_one(tmp_path, environment: Settings):
    """What `_stcore/host-config` says, however the server was started."""
    code = "import sys; from streamlit import config; config._main_script_path = sys.argv[1]; "
    code += "print(config.get_option('client.allowedOrigins'), config.get_option('server.enableAgentApi'))"
    command = [sys.executable, "-c", code, str(CHECKOUT / "app.py")]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[] False"
