"""What a server can do instead of answering as DICOMweb, and what is sent to it; a small server of this process."""

import base64
import json
import logging
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lungseg.config import Settings
from lungseg.errors import (
    LungSegError,
    NotDicomwebError,
    PacsError,
    PacsRefusedError,
    PacsUnauthorisedError,
    PacsUnreachableError,
    SetupError,
    TooLargeError,
)
from lungseg.pacs import completeness, connection, dicomweb
from lungseg.pacs.completeness import AGAIN_AFTER_S, LackingSlices
from lungseg.pacs.destinations import destination_of, destinations_of
from lungseg.pacs.dicomweb import retrieve_study, search, store
from lungseg.pacs.inbox import Identifiers, Inbox
from lungseg.pacs.multipart import join_parts
from lungseg.pacs.queries import PacsQuery
from lungseg.pacs.send import send
from lungseg.pacs_settings import PacsSettings
from tests.dicom_phantoms import small_volume, uid_of, write_secondary_capture, write_series
from tests.narrowing import existing
from tests.web import free_port

QUERY = PacsQuery(patient_id="P1")
STUDY = {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}, "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^J"}]}}
SERIES = {"0020000E": {"vr": "UI", "Value": ["1.2.4"]}, "00201209": {"vr": "IS", "Value": [2]}}
JSON = "application/dicom+json"


class Server:
    """Answers each request with the next of `answers` (status, content type, body); the last one for ever."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/pacs"
        self.answers = [(200, JSON, b"[]")]
        self.requests = []

    def next(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def serving(context: ssl.SSLContext | None = None):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answering.requests.append((self.path, dict(self.headers), body))
            status, content_type, answer = answering.next()
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(answer)))
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
            self.wfile.write(answer)

        def do_POST(self):
            self.do_GET()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        if context:
            listening.socket = context.wrap_socket(listening.socket, server_side=True)
        answering = Server(listening.server_address[1])
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield answering
        listening.shutdown()
        thread.join()


@pytest.fixture
def server():
    with serving() as running:
        yield running


def known(settings: Settings, url: str, **pacs) -> Settings:
    return replace(settings, pacs=PacsSettings(dicomweb_url=url, timeout_s=5, **pacs))


def as_json(*items) -> tuple[int, str, bytes]:
    return 200, JSON, json.dumps(items).encode()


@pytest.mark.parametrize(
    ("answer", "error", "found"),
    [
        ((401, "text/plain", b""), PacsUnauthorisedError, "status 401"),
        ((403, "text/plain", b""), PacsUnauthorisedError, "status 403"),
        ((404, "text/html", b"<p>"), NotDicomwebError, "status 404"),
        ((503, "text/plain", b""), PacsUnreachableError, "status 503"),
        ((302, "text/plain", b""), NotDicomwebError, "another address"),
        ((200, "text/html", b"<html>"), NotDicomwebError, "no DICOMweb server"),
        ((200, JSON, b'[{"0020000D": {"Value": ["../x"]}}]'), PacsError, "no UID"),
        ((200, JSON, b'[{"0020000D": {"Value": [".."]}}]'), PacsError, "no UID"),
        ((200, JSON, b"5"), NotDicomwebError, "no list of data sets"),
        ((200, JSON, b'"text"'), NotDicomwebError, "no list of data sets"),
        ((200, JSON, b"[" * 100_000), NotDicomwebError, "no DICOMweb server"),
    ],
)
def test_what_is_no_answer_is_named(server, settings, answer, error, found):
    server.answers = [answer]
    with pytest.raises(error, match=found) as caught:
        search(known(settings, server.url), QUERY)
    assert "P1" not in str(caught.value)


def test_nobody_there_and_nobody_asked(settings):
    with pytest.raises(PacsUnreachableError, match="can't be reached"):
        search(known(settings, f"http://127.0.0.1:{free_port()}/x"), QUERY)
    with pytest.raises(SetupError, match="No DICOMweb server is set"):
        search(settings, QUERY)


def test_silence_is_not_waited_for(server, settings, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(server, "next", lambda: (200, JSON, b"[]") if release.wait(20) else None)
    slow = replace(settings, pacs=PacsSettings(dicomweb_url=server.url, timeout_s=1))
    try:
        with pytest.raises(PacsUnreachableError, match="does not answer in 1 s"):
            search(slow, QUERY)
    finally:
        server.answers = [(200, JSON, b"[]")]
        monkeypatch.undo()
        release.set()


def test_a_server_that_passes_the_offset_over_is_not_asked_for_ever(server, settings):
    server.answers = [as_json(STUDY)]
    assert [one.patient_name for one in search(known(settings, server.url), QUERY).studies] == ["Doe^J"]
    assert len(server.requests) == 2


def test_studies_without_ct_are_left_out(server, settings):
    other = {**STUDY, "0020000D": {"Value": ["1.2.9"]}, "00080061": {"Value": ["MR"]}, "00080020": {"Value": ["2024"]}}
    server.answers = [as_json(STUDY, other), as_json()]
    assert [one.study_uid for one in search(known(settings, server.url), QUERY).studies] == ["1.2.3"]


def test_credentials_go_to_their_server_and_no_proxy_is_asked(server, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    (tmp_path / "login").write_text("me:se:cret\n")
    (tmp_path / "token").write_text("abc\n")
    search(known(settings, server.url, dicomweb_login=tmp_path / "login"), QUERY)
    search(known(settings, server.url, dicomweb_token=tmp_path / "token"), QUERY)
    elsewhere = known(settings, "http://127.0.0.1:9/pacs", dicomweb_token=tmp_path / "token")
    server.answers = [stored(1)]
    store(elsewhere, server.url, [tmp_path / "token"])
    credentials = [headers.get("Authorization") for _, headers, _ in server.requests]
    assert credentials == ["Basic bWU6c2U6Y3JldA==", "Bearer abc", None]


def test_an_answer_that_drips_in_is_not_waited_for(settings):
    """Each piece comes in time, the answer never would."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            peer, _ = listening.accept()
            with peer, suppress(OSError):
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
                for _ in range(100):
                    peer.sendall(b"1\r\n \r\n")
                    if stopped.wait(0.1):
                        return

        stopped = threading.Event()
        dripping = threading.Thread(target=drip)
        dripping.start()
        slow = PacsSettings(dicomweb_url=f"http://127.0.0.1:{listening.getsockname()[1]}/x", timeout_s=1)
        try:
            with pytest.raises(PacsUnreachableError, match="does not answer in 1 s"):
                search(replace(settings, pacs=slow), QUERY)
        finally:
            stopped.set()
            dripping.join()


def test_an_answer_without_end_is_an_error(server, settings, monkeypatch):
    monkeypatch.setattr(connection, "MOST_ANSWER_BYTES", 1000)
    server.answers = [(200, JSON, b" " * 1001)]
    with pytest.raises(NotDicomwebError, match="has no end"):
        search(known(settings, server.url), QUERY)
    monkeypatch.setattr(dicomweb, "MOST_PAGES", 3)
    server.answers = [as_json({**SERIES, "00200011": {"Value": [number]}}) for number in range(5)]
    with pytest.raises(NotDicomwebError, match="has no end"):
        search(known(settings, server.url), PacsQuery(study_uid="1.2.3"))


def test_a_password_of_any_script_is_sent(server, settings, tmp_path):
    login = tmp_path / "login"
    login.write_text("radiologie:geheim-€")
    search(known(settings, server.url, dicomweb_login=login), QUERY)
    sent = server.requests[0][1]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == "radiologie:geheim-€"


def test_characters_that_an_address_does_not_hold_are_wildcards(server, settings):
    search(known(settings, server.url), PacsQuery(patient_id="Ä 1/2", patient_name="Müller, Jörg", description="a&b"))
    address = server.requests[0][0]
    assert "PatientID=??1?2&" in address
    assert "PatientName=*M*ller*J*rg*&" in address
    assert "StudyDescription=*a*b*" in address


def stored(number: int) -> tuple[int, str, bytes]:
    """Return the answer of a store as Orthanc gives it: with an empty list of failures."""
    return as_json({"00081198": {"Value": []}, "00081199": {"Value": [{}] * number}})


def parts(*files: bytes) -> tuple[int, str, bytes]:
    return 200, 'multipart/related; boundary="x y"', join_parts(files, b"x y")


def test_more_files_than_an_upload_may_hold_are_refused(server, settings, tmp_path):
    server.answers = [as_json(SERIES), as_json(), parts(b"one", b"two")]
    few = replace(known(settings, server.url), limits=replace(settings.limits, files=1))
    with pytest.raises(TooLargeError, match="more files than an upload"):
        retrieve_study(few, "1.2.3", "", tmp_path)


@pytest.mark.parametrize("sent", [(b"one",), (b"", b"x" * 2_500_000), (b"one", b"")])
def test_fewer_instances_than_announced_are_an_error(server, settings, tmp_path, sent):
    """A part without content is no instance, and one that comes in several pieces is one."""
    server.answers = [as_json(SERIES), as_json(), parts(*sent)]
    with pytest.raises(PacsError, match="announces 2 instances of a series and sends 1"):
        retrieve_study(known(settings, server.url), "1.2.3", "", tmp_path)


def test_a_body_of_another_kind_is_an_error(server, settings, tmp_path):
    server.answers = [as_json(SERIES), as_json(), (200, "text/html", b"<html>")]
    with pytest.raises(NotDicomwebError, match="sends text/html"):
        retrieve_study(known(settings, server.url), "1.2.3", "", tmp_path)


def test_instances_are_stored_in_batches_and_again_where_the_server_is_busy(server, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb, "BATCH_BYTES", 10)
    files = []
    for number in range(3):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(bytes([65 + number]) * 5)
    server.answers = [(503, "text/plain", b""), stored(2), stored(1)]
    store(known(settings, server.url), server.url, files)
    assert [(b"AAAAA" in body, b"CCCCC" in body) for _, _, body in server.requests] == [
        (True, False), (True, False), (False, True),
    ]  # fmt: skip
    server.answers = [(503, "text/plain", b"")]
    with pytest.raises(PacsUnreachableError, match="status 503"):
        store(known(settings, server.url), server.url, files)
    store(known(settings, server.url), server.url, [])


def test_instances_that_a_server_refuses_are_counted(server, settings, tmp_path):
    failures = {"00081198": {"Value": [{"00081197": {"Value": [272]}}, {"00081197": {"Value": [272]}}]}}
    (tmp_path / "file").write_bytes(b"x")
    for answer, found in (
        ((202, JSON, json.dumps(failures).encode()), r"refuses 2 results \(reason 272\)"),
        ((409, "text/plain", b""), r"refuses the results \(status 409\)"),
        (stored(1), "names 1 of 2 results as stored"),
        ((200, JSON, b"{}"), "names 0 of 2 results as stored"),
        ((200, "text/plain", b""), "names 0 of 2 results as stored"),
    ):
        server.answers = [answer]
        with pytest.raises(PacsRefusedError, match=found):
            store(known(settings, server.url), server.url, [tmp_path / "file"] * 2)


def test_the_page_of_a_login_is_no_answer_of_a_store(server, settings, tmp_path):
    server.answers = [(200, "text/html; charset=utf-8", b"<form>")]
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(NotDicomwebError, match="sends text/html instead of what it has stored"):
        store(known(settings, server.url), server.url, [tmp_path / "file"])


def test_no_library_logs_addresses_or_names():
    for name in ("dicomweb_client", "pynetdicom", "urllib3.connectionpool"):
        assert not logging.getLogger(name).isEnabledFor(logging.ERROR)


@pytest.fixture
def received(tmp_path):
    """The folder of a study with two slices of one series, as the listener keeps it."""
    inbox = Inbox(tmp_path / "inbox")
    for number, path in enumerate(write_series(tmp_path / "sent", small_volume(2))):
        inbox.keep(Identifiers("1.2.3", "1.2.4", f"1.2.4.{number}"), path.read_bytes(), "one")
    (study,) = inbox.folder.iterdir()
    return study


def test_slices_that_the_server_has_and_that_did_not_come_are_counted(server, settings, received):
    own = {**SERIES, "0020000E": {"Value": [uid_of("P1", "study", "a")]}, "00201209": {"Value": [5]}}
    server.answers = [as_json(SERIES, own), as_json(), as_json({**own, "00201209": {"Value": [2]}}), as_json()]
    lacking = LackingSlices(known(settings, server.url))
    assert lacking(received) == 3  # of the other series nothing was sent
    assert server.requests[0][0].startswith(f"/pacs/studies/{uid_of('P1', 'study')}/series?")
    assert lacking(received) == 0
    assert LackingSlices(settings)(received) == 0
    (received / "empty").mkdir()
    assert lacking(received / "empty") == 0


def test_a_server_that_is_away_keeps_no_study_waiting(server, settings, received, caplog):
    now = [0.0]
    server.answers = [(503, "text/plain", b"")]
    lacking = LackingSlices(known(settings, server.url), lambda: now[0])
    assert lacking(received) == lacking(received) == 0
    assert len(server.requests) == 1
    assert "can't say whether a study is whole: pacs.unreachable" in caplog.text
    now[0] = AGAIN_AFTER_S
    lacking(received)
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", ["search", "read_headers"])
def test_whatever_a_server_answers_or_a_file_holds_keeps_no_study_waiting(
    server, settings, received, monkeypatch, caplog, name
):
    def fail(*_):
        raise TypeError("Doe")

    monkeypatch.setattr(completeness, name, fail)
    assert LackingSlices(known(settings, server.url))(received) == 0
    assert "TypeError" in caplog.text
    assert "Doe" not in caplog.text


def test_a_certificate_is_checked_by_the_file_that_is_named(settings, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    subprocess.run([*command, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(context) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(PacsUnreachableError, match="certificate of the PACS is not trusted"):
            search(known(settings, url), QUERY)
        assert search(known(settings, url, ca_file=certificate), QUERY).studies == ()
        with pytest.raises(SetupError, match=r"no\.pem can't be read"):
            search(known(settings, url, ca_file=tmp_path / "no.pem"), QUERY)


def test_destinations_are_read_from_the_settings(settings):
    pacs = PacsSettings(destinations=("main archive=AET@pacs.local:104", "web=https://h/dicom-web"))
    assert [str(one) for one in destinations_of(pacs).values()][1] == "https://h/dicom-web"
    with pytest.raises(SetupError, match="no destination 'nowhere'"):
        destination_of(pacs, "nowhere")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"destinations": ("archive",)}, "LUNGSEG_PACS_DESTINATIONS has 'archive'"),
        ({"destinations": ("a=B@h:70000",)}, "LUNGSEG_PACS_DESTINATIONS has"),
        ({"send_back_to": "b", "destinations": ("a=B@h:1",)}, "LUNGSEG_PACS_SEND_BACK is 'b'"),
        ({"listen_port": 0}, "LUNGSEG_LISTEN_PORT is 0"),
        ({"listen_from": ("MUCH TOO LONG A TITLE",)}, "LUNGSEG_LISTEN_FROM has"),
        ({"aet": ""}, "LUNGSEG_PACS_AET has"),
        ({"dicomweb_url": "ftp://h"}, "LUNGSEG_DICOMWEB_URL has 'ftp://h'"),
        ({"dicomweb_url": "http://:80:x"}, "LUNGSEG_DICOMWEB_URL has"),
        ({"dicomweb_url": "https://h/dicom-web?token=x"}, "LUNGSEG_DICOMWEB_URL has"),
        ({"destinations": ("a=B@h:1", "a=http://h/x")}, "LUNGSEG_PACS_DESTINATIONS names 'a' twice"),
        ({"destinations": ("a=https://",)}, "LUNGSEG_PACS_DESTINATIONS has 'a', and nowhere"),
        ({"timeout_s": 0}, r"LUNGSEG_PACS_TIMEOUT is 0\. Set it to a number of seconds"),
        ({"quiet_s": -1}, "LUNGSEG_LISTEN_QUIET is -1"),
    ],
)
def test_settings_that_can_not_be_used_are_refused(fields, found):
    with pytest.raises(SetupError, match=found):
        PacsSettings(**fields)


@pytest.mark.parametrize(
    "fields", [{"dicomweb_url": "https://me:secret@h/x"}, {"destinations": ("a=https://me:secret@h/x",)}]
)
def test_a_password_in_an_address_is_refused_and_not_repeated(fields):
    with pytest.raises(SetupError, match="has a user or a password in an address") as caught:
        PacsSettings(**fields)
    assert "secret" not in str(caught.value)


@pytest.fixture
def node(tmp_path):
    """A storage SCP that takes CT alone, and answers with a status of the test's."""
    from pydicom import dcmread
    from pynetdicom import AE, evt
    from pynetdicom.events import EventHandlerType

    answers = {"status": 0x0000}
    entity = AE(ae_title="NODE")
    entity.require_called_aet = True
    for path in write_series(tmp_path / "model", small_volume(1)):
        entity.add_supported_context(dcmread(path).SOPClassUID)
    handlers: list[EventHandlerType] = [(evt.EVT_C_STORE, lambda _: answers["status"])]
    answers["port"] = free_port()
    running = existing(entity.start_server(("127.0.0.1", answers["port"]), block=False, evt_handlers=handlers))
    yield answers
    running.shutdown()


def test_sending_by_c_store(settings, node, tmp_path):
    to = replace(settings, pacs=PacsSettings(destinations=(f"node=NODE@127.0.0.1:{node['port']}",), timeout_s=5))
    files = write_series(tmp_path / "series", small_volume(2))
    picture = write_secondary_capture(tmp_path / "picture")
    send(to, "node", files)
    node["status"] = 0xB000
    send(to, "node", files)
    for status, error in ((0xA700, "status 0xA700"),):
        node["status"] = status
        with pytest.raises(PacsRefusedError, match=error):
            send(to, "node", files)
    with pytest.raises(PacsRefusedError, match="does not take Secondary Capture"):
        send(to, "node", [*files, picture])
    for host in ("127.0.0.1", "no..host"):
        away = replace(settings, pacs=PacsSettings(destinations=(f"node=NODE@{host}:{free_port()}",), timeout_s=5))
        with pytest.raises(PacsUnreachableError, match="Nobody answers as NODE"):
            send(away, "node", files)


def test_every_error_of_a_pacs_has_a_code_of_its_own():
    kinds: list[type[LungSegError]] = [PacsError, *PacsError.__subclasses__()]
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes) == 5
