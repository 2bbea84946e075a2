"""The guard before the server: whom it lets in, what it closes, and the headers on every answer."""

import asyncio
import base64
import hashlib
import json
import re
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from socket import AF_INET, AF_INET6, AF_PACKET

import psutil
import pytest
import streamlit

from lungseg.config import Settings
from lungseg.errors import SetupError
from lungseg.web.guard import HEADERS, Guard, inline_hashes

INDEX = Path(streamlit.__file__).parent / "static" / "index.html"
STREAM = "/_stcore/stream"
HOST = "127.0.0.1:8501"
OWN = [("host", HOST), ("origin", f"http://{HOST}")]
Address = namedtuple("Address", "family address")


class Behind:
    """What is behind the guard: it notes who came through, and answers."""

    def __init__(self, headers=(), failure=None):
        self.scopes = []
        self.headers = headers
        self.failure = failure

    async def __call__(self, scope, receive, send):
        self.scopes.append(scope)
        if self.failure:
            raise self.failure
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": list(self.headers)})
            await send({"type": "http.response.body", "body": b"behind"})


@pytest.fixture
def behind():
    return Behind()


@pytest.fixture
def guard(settings, behind):
    """Make the guard of a server that binds to an address."""

    def make(address="127.0.0.1", app=behind, **changes):
        return Guard(app, replace(settings, **changes), address, INDEX.read_text(encoding="utf-8"))

    return make


def ask(guard, headers, *, path="/", method="GET", kind="http"):
    """Send one request; returns the messages of the answer. Also where a loop runs in this thread already."""
    sent = []
    scope = {
        "type": kind,
        "path": path,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
    } | ({"method": method} if kind == "http" else {"subprotocols": []})

    async def receive():
        return {"type": f"{kind}.connect" if kind == "websocket" else "http.request"}

    async def send(message):
        sent.append(message)

    async def call():
        await guard(scope, receive, send)

    with ThreadPoolExecutor() as thread:
        thread.submit(lambda: asyncio.run(call())).result()
    return sent


def status(guard, *headers, **request):
    return ask(guard, headers, **request)[0]["status"]


def is_opened(guard, *headers, path=STREAM):
    (message,) = ask(guard, headers, path=path, kind="websocket")
    assert message["type"] in {"websocket.accept", "websocket.close"}
    return message["type"] == "websocket.accept"


def headers_of(messages):
    pairs = [(name.decode(), value.decode()) for name, value in messages[0]["headers"]]
    assert len({name for name, _ in pairs}) == len(pairs), "every header stands there once"
    return dict(pairs)


LOOPBACK = [
    "localhost", "localhost:8501", "LocalHost:1", "localhost.:8501", "127.0.0.1", "127.0.0.1:9000", "127.9.9.9:8501",
    "[::1]", "[::1]:8501", "[0:0:0:0:0:0:0:1]:8501",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_names_are_served_on_any_port(guard, host):
    assert status(guard(), ("host", host)) == 200
    assert is_opened(guard(), ("host", host), ("origin", f"http://{host}"))


STRANGERS = [
    "rebound.example", "rebound.example:8501", "localhost.rebound.example", "127.0.0.1.nip.io:8501", "notlocalhost",
    "rebound.example:127.0.0.1", "localhost@rebound.example", "rebound.example@localhost", "localhost/", "localhost#",
    "localhost:8501/x", "localhost:", "localhost:port", "localhost:123456", "localhost rebound.example",
    "localhost,rebound.example", "localhost..", ".", "", " ", "::1", "[::1", "::1]:8501", "[::1]x", "[fe80::1]:8501",
    "0.0.0.0:8501", "[::]:8501", "192.168.1.7:8501", "2130706433", "127.1", "0x7f.0.0.1", "127.0.0.01", "lócalhost",
]  # fmt: skip


@pytest.mark.parametrize("host", STRANGERS)
def test_every_other_host_is_refused_before_anything_runs(guard, behind, host):
    start, body = ask(guard(), [("host", host)])
    assert start["status"] == 421
    answer = json.loads(body["body"])
    assert set(answer) == {"code", "found", "remedy"}
    assert answer["code"] == "access.refused"
    assert repr(host) in answer["found"]
    assert "LUNGSEG_ALLOWED_HOSTS" in answer["remedy"]
    assert not is_opened(guard(), ("host", host), ("origin", f"http://{host}"))
    assert behind.scopes == []


@pytest.mark.parametrize("hosts", [[], [HOST, HOST], [HOST, "rebound.example"], ["rebound.example", HOST]])
def test_exactly_one_host_is_expected(guard, behind, hosts):
    headers = [("host", host) for host in hosts]
    assert status(guard(), *headers) == 421
    assert not is_opened(guard(), *headers, ("origin", f"http://{HOST}"))
    assert behind.scopes == []


@pytest.mark.parametrize(
    ("address", "host", "expected"),
    [
        ("192.168.1.7", "192.168.1.7:8501", 200),
        ("192.168.1.7", "192.168.1.8:8501", 421),
        ("192.168.1.7", "localhost:8501", 200),
        ("fd00::7", "[fd00::7]:8501", 200),
        ("fd00::7", "[fd00:0:0::7]:8501", 200),
        ("fd00::7", "[fd00::8]:8501", 421),
        ("Scans.Example", "scans.example:8501", 200),
        ("scans.example", "rebound.example:8501", 421),
    ],
)
def test_address_that_the_server_binds_to_is_served(guard, address, host, expected):
    assert status(guard(address), ("host", host)) == expected


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "", None])
def test_server_on_every_interface_goes_by_this_machines_addresses(guard, monkeypatch, address):
    interfaces = {
        "lo": [Address(AF_INET, "127.0.0.1")],
        "eth0": [Address(AF_INET, "10.1.2.3"), Address(AF_INET6, "fe80::7%eth0"), Address(AF_PACKET, "52:54:00:00:00")],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: interfaces)
    everywhere = guard(address)
    for host in ("10.1.2.3:8501", "[fe80::7]:8501", "localhost:8501", "[::1]:8501"):
        assert status(everywhere, ("host", host)) == 200, host
    for host in ("10.1.2.4:8501", "[fe80::8]:8501", "rebound.example:8501", "0.0.0.0:8501", "[::]:8501"):
        assert status(everywhere, ("host", host)) == 421, host
    interfaces["wlan0"] = [Address(AF_INET, "10.1.2.4")]
    assert status(everywhere, ("host", "10.1.2.4:8501")) == 200, "addresses come and go while a server runs"
    assert status(guard("127.0.0.1"), ("host", "10.1.2.3:8501")) == 421


def test_names_that_the_administrator_allows(guard):
    allowing = guard(allowed_hosts=("Lungseg.example.org.", "10.1.2.3", "[fd00::7]"))
    for host in ("lungseg.example.org", "LUNGSEG.example.org.:443", "10.1.2.3:8501", "[fd00::7]:8501", "localhost"):
        assert status(allowing, ("host", host)) == 200, host
    for host in ("example.org", "x.lungseg.example.org", "10.1.2.4:8501", "[fd00::8]"):
        assert status(allowing, ("host", host)) == 421, host


def test_allowed_names_come_from_the_environment_and_are_handed_on(environment, monkeypatch):
    monkeypatch.setenv("LUNGSEG_ALLOWED_HOSTS", " lungseg.example.org, 10.1.2.3,,[fd00::7] ")
    settings = Settings.from_environment()
    assert settings.allowed_hosts == ("lungseg.example.org", "10.1.2.3", "[fd00::7]")
    assert settings.to_environment()["LUNGSEG_ALLOWED_HOSTS"] == "lungseg.example.org,10.1.2.3,[fd00::7]"
    monkeypatch.delenv("LUNGSEG_ALLOWED_HOSTS")
    assert Settings.from_environment().allowed_hosts == ()


@pytest.mark.parametrize(
    "name",
    [
        "https://lungseg.example.org",
        "lungseg.example.org:8501",
        "*",
        "*.example.org",
        "a/b",
        "a b",
        "",
        "[::1",
        "127.0.0.1:8501",
    ],
)
def test_names_that_can_not_be_hosts_are_refused_at_the_start(settings, name):
    with pytest.raises(SetupError, match=r"LUNGSEG_ALLOWED_HOSTS has .*\. Name each host .*lungseg\.example\.org"):
        replace(settings, allowed_hosts=("localhost", name))


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", [HOST, "localhost:8501", "[::1]:8501", "localhost"])
def test_own_origin_is_served(guard, scheme, host):
    headers = [("host", host), ("origin", f"{scheme}://{host}")]
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        assert status(guard(), *headers, method=method) == 200
    assert is_opened(guard(), *headers)


FOREIGN = [
    "http://attacker.example", "http://attacker.example:8501", "http://127.0.0.1:3000", "http://127.0.0.1",
    "http://localhost:8501", f"http://{HOST}.attacker.example", f"http://attacker.example/{HOST}", f"http://{HOST}/",
    f"http://{HOST}@attacker.example", f"ftp://{HOST}", f"chrome-extension://{HOST}", HOST, f"//{HOST}", "null", "",
    "file://", f"http://{HOST} http://{HOST}", f"http://user@{HOST}",
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN)
def test_foreign_origin_is_refused_whatever_it_asks(guard, behind, origin):
    headers = [("host", HOST), ("origin", origin)]
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        start, body = ask(guard(), headers, method=method)
        assert start["status"] == 403
        assert json.loads(body["body"])["code"] == "access.refused"
    assert not is_opened(guard(), *headers)
    assert behind.scopes == []


def test_several_origins_are_refused(guard, behind):
    for others in ([f"http://{HOST}"], ["http://attacker.example"]):
        headers = [*OWN, *(("origin", other) for other in others)]
        assert status(guard(), *headers) == 403
        assert not is_opened(guard(), *headers)
    assert behind.scopes == []


def test_host_and_origin_agree_letter_by_letter_so_that_streamlit_never_looks_further(guard):
    assert not is_opened(guard(), ("host", "LOCALHOST:8501"), ("origin", "http://localhost:8501"))


def test_websocket_has_to_name_its_origin(guard, behind):
    assert not is_opened(guard(), ("host", HOST))
    assert behind.scopes == []
    assert status(guard(), ("host", HOST)) == 200, "a request for a page names none"


@pytest.mark.parametrize("path", ["/", "/stream", "/_stcore/stream/x", "/_stcore/health", "/lungseg/files/x"])
def test_websocket_leads_to_the_pages_stream_alone(guard, behind, path):
    assert not is_opened(guard(), *OWN, path=path)
    assert behind.scopes == []


def site(where, mode, aim):
    return [("host", HOST), ("sec-fetch-site", where), ("sec-fetch-mode", mode), ("sec-fetch-dest", aim)]


OF_PAGES = [
    ("no-cors", "image"), ("no-cors", "script"), ("no-cors", "empty"), ("cors", "empty"), ("navigate", "iframe"),
    ("navigate", "frame"), ("navigate", "object"), ("navigate", "embed"),
]  # fmt: skip


@pytest.mark.parametrize("where", ["cross-site", "same-site"])
def test_what_another_site_asks_for_is_refused_but_a_link_works(guard, where):
    for mode, aim in OF_PAGES:
        assert status(guard(), *site(where, mode, aim)) == 403, (mode, aim)
    assert status(guard(), *site(where, "navigate", "document"), path="/viewer") == 200
    assert status(guard(), *site(where, "navigate", "document"), method="POST") == 403
    assert status(guard(), ("host", HOST), ("sec-fetch-site", where)) == 403


@pytest.mark.parametrize("where", ["same-origin", "none"])
def test_what_own_pages_and_users_ask_for_is_served(guard, where):
    for mode, aim in (("no-cors", "image"), ("cors", "empty"), ("navigate", "document")):
        assert status(guard(), *site(where, mode, aim)) == 200


CLOSED = [
    "/_stcore/metrics", "/_stcore/agent/interact", "/_stcore/agent/openapi.json", "/_stcore/agent/mcp",
    "/_stcore/agent/", "/_stcore/script-health-check", "/_stcore/bidi-components/x/y.js", "/_stcore/stream",
    "/_stcore/healthy", "/_stcore/host-config/x", "/_stcore/", "/_stcore/of-a-later-release", "/component/x/index.html",
    "/auth/login", "/auth/logout", "/oauth2callback", "/app/static/x", "/viewer/_stcore/metrics",
]  # fmt: skip


@pytest.mark.parametrize("path", CLOSED)
def test_addresses_that_no_page_needs_are_closed(guard, behind, path):
    for method in ("GET", "POST", "OPTIONS"):
        start, body = ask(guard(), OWN, path=path, method=method)
        assert start["status"] == 404
        assert json.loads(body["body"])["code"] == "record.not_found"
    assert behind.scopes == []


OPEN = [
    "/", "/viewer", "/_stcore/health", "/_stcore/host-config", "/_stcore/upload_file/session/file", "/media/x.png",
    "/static/js/index.js", "/lungseg/files/token", "/lungseg/viewer/niivue.js.gz", "/favicon.png",
]  # fmt: skip


@pytest.mark.parametrize("path", OPEN)
def test_addresses_that_pages_need_are_open(guard, path):
    assert status(guard(), *OWN, path=path) == 200


def test_headers_stand_on_every_answer(guard, behind):
    expected = {name.lower(): value for name, value in HEADERS.items()}
    answers = {
        "page": ask(guard(), OWN),
        "stranger": ask(guard(), [("host", "rebound.example")]),
        "foreign": ask(guard(), [("host", HOST), ("origin", "null")]),
        "closed": ask(guard(), OWN, path="/_stcore/metrics"),
    }
    for name, answer in answers.items():
        headers = headers_of(answer)
        assert expected.items() <= headers.items(), name
        assert "frame-ancestors 'none'" in headers["content-security-policy"], name
    assert expected["x-frame-options"] == "DENY"
    assert expected["x-content-type-options"] == "nosniff"
    assert expected["referrer-policy"] == "no-referrer"
    assert expected["cross-origin-opener-policy"] == expected["cross-origin-resource-policy"] == "same-origin"
    assert all(f"{feature}=()" in expected["permissions-policy"] for feature in ("camera", "microphone", "geolocation"))


def test_weaker_headers_from_behind_are_replaced_and_others_kept(guard):
    weaker = [(b"X-Frame-Options", b"ALLOWALL"), (b"Content-Security-Policy", b"*"), (b"ETag", b'"1"')]
    headers = headers_of(ask(guard(app=Behind(weaker)), OWN))
    assert headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["ETag"] == '"1"'


def test_failure_behind_is_answered_with_headers_and_goes_on_to_the_log(guard):
    failing = guard(app=Behind(failure=RuntimeError("fault")))
    sent = []

    async def send(message):
        sent.append(message)

    async def call():
        await failing({"type": "http", "path": "/", "method": "GET", "headers": [(b"host", HOST.encode())]}, None, send)

    with pytest.raises(RuntimeError, match="fault"), ThreadPoolExecutor() as thread:
        thread.submit(lambda: asyncio.run(call())).result()
    assert sent[0]["status"] == 500
    assert headers_of(sent)["x-frame-options"] == "DENY"
    assert b"fault" not in sent[1]["body"]


def test_reason_of_a_refusal_stands_in_the_log_but_not_of_each(guard, caplog):
    asked = guard()
    for _ in range(20):
        assert not is_opened(asked, ("host", HOST), ("origin", "http://attacker.example\n2026 all is well"))
    (record,) = caplog.records
    assert "from origin 'http://attacker.example\\n2026" in record.message
    assert "\n" not in record.message


def policy(guard, host):
    text = headers_of(ask(guard, [("host", host)]))["content-security-policy"]
    return {name: set(sources.split()) for name, _, sources in (part.partition(" ") for part in text.split("; "))}


def test_policy_allows_this_server_and_nothing_else(guard):
    directives = policy(guard(), HOST)
    assert directives["default-src"] == directives["object-src"] == directives["frame-src"] == {"'none'"}
    assert directives["frame-ancestors"] == directives["base-uri"] == {"'none'"}
    assert directives["form-action"] == {"'self'"}
    assert directives["connect-src"] >= {"'self'", f"ws://{HOST}", f"wss://{HOST}"}
    scripts = directives["script-src"]
    named = {source for source in scripts if not source.startswith("'sha256-")}
    assert named == {"'self'", "blob:", "'wasm-unsafe-eval'"}
    everything = set().union(*directives.values())
    assert not everything & {"*", "http:", "https:", "ws:", "wss:", "'unsafe-eval'", "'unsafe-hashes'"}
    assert [name for name, sources in directives.items() if "'unsafe-inline'" in sources] == ["style-src"]


def test_policy_names_the_websocket_as_the_browser_does_and_never_a_stranger(guard):
    assert {"ws://localhost:9000", "wss://localhost:9000"} <= policy(guard(), "localhost:9000")["connect-src"]
    assert not any("[" in source for source in policy(guard(), "[::1]:8501")["connect-src"])
    assert not any("rebound" in source for source in policy(guard(), "rebound.example")["connect-src"])


def hash_of(script):
    return f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"


def test_inline_scripts_of_the_installed_page_are_known_by_their_hash(guard):
    html = INDEX.read_text(encoding="utf-8")
    inline = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    expected = {hash_of(script.encode()) for script in inline}
    assert len(expected) == len(re.findall(r"<script(?![^>]* src=)", html)) > 0
    assert expected <= policy(guard(), HOST)["script-src"]


def test_hashes_are_those_of_scripts_without_an_address():
    page = "<script src='a.js'></script><p>x</p><script>1 &lt; 2</script><SCRIPT type=module>\nb\n</SCRIPT>"
    first, second = inline_hashes(page)
    assert (first, second) == (hash_of(b"1 &lt; 2"), hash_of(b"\nb\n"))


def test_start_and_end_of_the_server_pass_through(guard, behind):
    assert ask(guard(), [], kind="lifespan") == []
    assert [scope["type"] for scope in behind.scopes] == ["lifespan"]
