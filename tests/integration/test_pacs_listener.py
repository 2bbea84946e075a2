"""The listener as a process: many studies at once, killed in between; what becomes of a study; who may send."""

import os
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydicom import dcmread

from lungseg.config import Settings
from lungseg.db import runs as rows
from lungseg.errors import StorageError
from lungseg.files import keys
from lungseg.pacs.inbox import PAUSE_S, Identifiers, Inbox
from lungseg.records.run_configs import IntakeConfig
from lungseg.services import reception
from lungseg.services.installation import Installation
from lungseg.services.intake import folder_of
from lungseg.services.reception import hand_over_due, open_inbox
from tests.dicom_phantoms import small_volume, write_series
from tests.pacs import echo, is_open, running_listener, send_until_kept
from tests.runs_at_work import wait_for
from tests.web import free_port

STUDIES, SLICES = 20, 6


@pytest.fixture(autouse=True)
def dcmtk():
    if shutil.which("storescu") is None:
        pytest.skip("there is no dcmtk")


@pytest.fixture
def listening(environment, database, monkeypatch):
    """The installation of a listener whose studies are complete after a few seconds."""
    monkeypatch.setenv("LUNGSEG_LISTEN_PORT", str(free_port()))
    monkeypatch.setenv("LUNGSEG_LISTEN_FROM", "PACS,OTHER")
    monkeypatch.setenv("LUNGSEG_LISTEN_QUIET", "5")
    return Installation(Settings.from_environment(), database)


def intakes(installation):
    with installation.database.read() as session:
        runs = [rows.get_run(session, run_id) for run_id in rows.all_run_ids(session)]
    return [run.config_as(IntakeConfig) for run in runs]


def uploaded(installation, config):
    folder = folder_of(installation.files, config.intake).upload
    return [dcmread(path, stop_before_pixels=True) for path in sorted(folder.iterdir())]


def test_twenty_studies_at_once_with_a_kill_in_between(listening, tmp_path):
    """All there, none twice, none lost: every slice whose sender was told that it is kept, and the rest sent again."""
    pacs = listening.settings.pacs
    studies = [
        write_series(tmp_path / str(number), small_volume(SLICES), patient=f"P{number}", study=f"s{number}")
        for number in range(STUDIES)
    ]
    inbox = listening.files.local(keys.LISTENER) / "inbox"
    with ThreadPoolExecutor(STUDIES) as senders:
        with running_listener(pacs) as first:
            sent = [senders.submit(send_until_kept, pacs, files) for files in studies]
            wait_for(lambda: len(list(inbox.glob("*/*/*.dcm"))) > STUDIES * SLICES // 3, 60)
            first.kill()
            first.wait()
        with running_listener(pacs):
            for future in sent:
                future.result()
            wait_for(lambda: len(intakes(listening)) == STUDIES, 60)
    configs = intakes(listening)
    slices = [[dataset.SOPInstanceUID for dataset in uploaded(listening, config)] for config in configs]
    assert all(config.unattended for config in configs)
    assert sorted(uid for part in slices for uid in part) == sorted(
        dcmread(path, stop_before_pixels=True).SOPInstanceUID for files in studies for path in files
    )
    assert [len(part) for part in slices] == [SLICES] * STUDIES


def test_storescu_of_dcmtk_and_strangers(listening, tmp_path):
    pacs = listening.settings.pacs
    files = write_series(tmp_path / "series", small_volume(SLICES))
    command = ["storescu", "-aec", pacs.aet, pacs.listen_host, str(pacs.listen_port), *map(str, files)]
    with running_listener(pacs):
        refused = subprocess.run([*command, "-aet", "STRANGER"], check=False, capture_output=True, text=True)
        assert refused.returncode != 0
        assert "Calling AE Title Not Recognized" in refused.stderr
        assert echo(pacs, called="ELSEWHERE") is None
        subprocess.run([*command, "-aet", "OTHER"], check=True)
        wait_for(lambda: intakes(listening), 30)
    (config,) = intakes(listening)
    assert len(uploaded(listening, config)) == SLICES
    assert not list((listening.settings.home / keys.LISTENER / "links").glob("*"))


def test_one_listener_for_each_home_and_none_without_senders(listening, lungseg, monkeypatch):
    with running_listener(listening.settings.pacs):
        code, _, errors = lungseg("listen")
        assert (code, "Another `lungseg listen`" in errors.replace("\n", " ")) == (2, True)
    monkeypatch.delenv("LUNGSEG_LISTEN_FROM")
    code, _, errors = lungseg("listen")
    assert (code, "setup.incomplete" in errors) == (2, True)


def test_it_ends_in_good_order_at_a_signal(listening, lungseg, tmp_path):
    """In this process: a study is taken in, then the signal comes."""
    pacs = listening.settings.pacs
    files = write_series(tmp_path / "series", small_volume(2))

    def send_and_end():
        wait_for(lambda: is_open(pacs), 60)
        send_until_kept(pacs, files)
        wait_for(lambda: intakes(listening), 60)
        os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as sender:
        sent = sender.submit(send_and_end)
        code, output, _ = lungseg("listen")
        sent.result()
    assert code == 0
    assert f"127.0.0.1:{pacs.listen_port} for PACS, OTHER" in output.replace("\n", " ")


def test_what_was_handed_over_before_a_kill_is_not_handed_over_twice(listening, tmp_path):
    now = [0.0]
    inbox = Inbox(listening.files.local(keys.LISTENER) / "inbox", lambda: now[0])
    for number in range(2):
        inbox.keep(Identifiers("1.2", "1.2.3", f"1.2.3.{number}"), b"slice %d" % number, "one")
    inbox.release("one")
    now[0] = 60.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Inbox, "end_handover", end_here)  # killed before it is written down
        with pytest.raises(RuntimeError):
            hand_over_due(listening, inbox)
    assert len(intakes(listening)) == 1
    (listening.files.local(keys.LISTENER) / "links").mkdir(exist_ok=True)  # as a kill can leave it
    again = open_inbox(listening)
    assert not (listening.files.local(keys.LISTENER) / "links").exists()
    assert hand_over_due(listening, again) == 1
    (config,) = intakes(listening)
    folder = folder_of(listening.files, config.intake).upload
    assert sorted(path.read_bytes() for path in folder.iterdir()) == [b"slice 0", b"slice 1"]


def test_a_study_that_can_not_be_handed_over_stays(listening, monkeypatch, caplog):
    now = [0.0]
    inbox = Inbox(listening.files.local(keys.LISTENER) / "inbox", lambda: now[0])
    inbox.keep(Identifiers("1.2", "1.2.3", "1.2.3.4"), b"slice", "one")
    inbox.release("one")
    now[0] = 60.0
    with monkeypatch.context() as patch:
        patch.setattr(reception, "begin", refuse)
        assert hand_over_due(listening, inbox) == 0
    assert "The database is busy." in caplog.text
    assert intakes(listening) == []
    assert hand_over_due(listening, inbox) == 0  # not at once again
    now[0] += PAUSE_S
    assert hand_over_due(listening, inbox) == 1
    assert len(intakes(listening)) == 1


def refuse(*_, **__):
    raise StorageError("The database is busy.", "Wait.")


def end_here(*_):
    raise RuntimeError
