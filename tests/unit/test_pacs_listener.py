"""The listener in this process: whom it lets in, what it takes, what it answers."""

import socket
import struct
import threading
from contextlib import suppress
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.association import Association

from lungseg.errors import DiskFullError, SetupError, StorageError
from lungseg.intake.survey import contents_of
from lungseg.pacs import listener
from lungseg.pacs.inbox import Inbox
from lungseg.pacs.listener import DicomListener
from lungseg.pacs_settings import PacsSettings
from tests.dicom_phantoms import small_volume, write_secondary_capture, write_series
from tests.pacs import echo, store
from tests.runs_at_work import wait_for
from tests.web import free_port

PATIENT_FIND, PATIENT_MOVE = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.1.2"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"


@pytest.fixture
def pacs():
    return PacsSettings(listen_port=free_port(), listen_from=("PACS", "CT1"))


@pytest.fixture
def inbox(tmp_path):
    return Inbox(tmp_path / "inbox")


@pytest.fixture
def listening(pacs, inbox):
    """The settings of a listener that runs."""
    with DicomListener(pacs, inbox):
        yield pacs


@pytest.fixture
def files(tmp_path):
    return write_series(tmp_path / "series", small_volume(3))


def received(inbox):
    return sorted(inbox.folder.rglob("*.dcm"))


def test_known_titles_are_answered_and_others_refused(listening):
    assert echo(listening) == 0
    assert echo(listening, calling="CT1") == 0
    assert echo(listening, calling="STRANGER") is None
    assert echo(listening, called="SOMEBODY") is None


def test_a_stranger_stores_nothing(listening, inbox, files):
    assert store(listening, files, calling="STRANGER") == []
    assert received(inbox) == []


def test_slices_are_kept_as_they_were_sent(listening, inbox, tmp_path):
    files = write_series(tmp_path / "series", small_volume(3), transfer_syntax=JPEGLSLossless)
    assert store(listening, files) == [0, 0, 0]
    assert len(received(inbox)) == 3
    pixels = {path.read_bytes()[-64:] for path in received(inbox)}
    assert pixels == {path.read_bytes()[-64:] for path in files}
    assert store(listening, files) == [0, 0, 0]
    assert len(received(inbox)) == 3


def test_another_slice_under_the_same_uid_is_kept_too(listening, inbox, files, tmp_path):
    store(listening, files)
    changed = write_series(tmp_path / "other", small_volume(3) + 1)
    assert store(listening, changed) == [0, 0, 0]
    assert len(received(inbox)) == 6


def test_what_comes_twice_under_one_uid_is_one_slice_if_it_shows_the_same_and_refused_if_not(
    listening, inbox, tmp_path, settings
):
    """What docs/pacs.md says of conflicts, from the sender to the offer."""

    def offers():
        return contents_of(dict.fromkeys(received(inbox), "x"), limits=settings.limits).survey.offers

    volume = small_volume()
    store(listening, write_series(tmp_path / "a", volume))
    store(listening, write_series(tmp_path / "b", volume[:4], transfer_syntax=JPEGLSLossless))
    assert len(received(inbox)) == len(volume) + 4
    (offer,) = offers()
    assert (offer.slices, offer.refusal) == (len(volume), "")
    store(listening, write_series(tmp_path / "c", volume[:4] + 1))
    (offer,) = offers()
    assert "4 slices came twice under one identity" in offer.refusal


def test_a_deflated_slice_is_kept_and_only_its_head_inflated(listening, inbox, tmp_path, monkeypatch):
    monkeypatch.setattr(listener, "HEAD_BYTES", 2048)
    files = write_series(tmp_path / "series", small_volume(2), transfer_syntax=DeflatedExplicitVRLittleEndian)
    assert store(listening, files) == [0, 0]
    assert len(received(inbox)) == 2


@pytest.mark.parametrize("start", [b"\x01", b"\x01\x00\x00\x00\x10\x00" + b"x" * 100])
def test_half_a_message_holds_no_connection_for_ever(pacs, inbox, monkeypatch, start):
    monkeypatch.setattr(listener, "NEGOTIATED_IN_S", 0.2)
    monkeypatch.setattr(listener, "SILENT_S", 0.4)
    before = acceptors()
    with DicomListener(pacs, inbox), socket.create_connection(("127.0.0.1", pacs.listen_port), timeout=10) as stranger:
        stranger.sendall(start)
        (own,) = wait_for(lambda: acceptors() - before, 10)
        own.join(10)
        assert not own.is_alive()


def acceptors():
    return {thread for thread in threading.enumerate() if thread.name.startswith("AcceptorThread")}


def test_who_announces_a_long_message_is_cut_off_before_it_is_read(listening, caplog):
    with socket.create_connection(("127.0.0.1", listening.listen_port), timeout=10) as stranger:
        stranger.sendall(b"\x01\x00\xff\xff\xff\xff" + b"x" * 1000)
        with suppress(ConnectionResetError):
            assert stranger.recv(100) == b""
    assert "asks for more memory" in caplog.text
    assert echo(listening) == 0


def test_request_of_which_the_library_makes_nothing_leaves_no_connection_open(listening, caplog):
    names = b"LUNGSEG".ljust(16) + b"PACS".ljust(16) + bytes(32)
    contexts = b"\x10\0\0\x15" + b"1.2.840.10008.3.1.1.1" + b"\x20\0\0\x04\x01\0\0\0"  # a context without a syntax
    before = acceptors()
    with socket.create_connection(("127.0.0.1", listening.listen_port), timeout=10) as stranger:
        stranger.sendall(b"\x01\0" + struct.pack(">LH2x", 68 + len(contexts), 1) + names + contexts)
        assert stranger.recv(100) == b""
    wait_for(lambda: not acceptors() - before, 10)
    assert "can't be carried on" in caplog.text
    assert echo(listening) == 0


def test_half_a_message_has_less_time_before_anything_is_agreed(pacs, inbox, monkeypatch):
    monkeypatch.setattr(listener, "NEGOTIATED_IN_S", 0.3)
    before = acceptors()
    with DicomListener(pacs, inbox), socket.create_connection(("127.0.0.1", pacs.listen_port), timeout=10) as stranger:
        stranger.sendall(b"\x01\0\0")
        (own,) = wait_for(lambda: acceptors() - before, 10)
        own.join(10)
        assert not own.is_alive()


def test_what_is_received_together_has_a_bound_and_what_is_kept_leaves_room(pacs, inbox, tmp_path):
    small = write_series(tmp_path / "small", small_volume(6))
    large = write_series(tmp_path / "large", np.zeros((1, 200, 200), np.int16), series="large")
    with DicomListener(pacs, inbox, memory_bytes=listener.COPIES * 2 * small[0].stat().st_size):
        assert store(pacs, large) == [None]
        assert received(inbox) == []
        assert store(pacs, small) == [0] * 6
    assert len(received(inbox)) == 6


def test_what_an_association_held_whose_end_went_unnoticed_is_free_again():
    budget = listener._Budget(10)
    ended, going_on = cast("Association", threading.Thread()), cast("Association", threading.current_thread())
    assert budget.reserve(ended, 8)
    assert budget.reserve(going_on, 8)
    assert not budget.reserve(going_on, 8)
    budget.release(going_on)
    assert budget.reserve(going_on, 8)


def test_a_slice_that_is_kept_after_its_connection_closed_keeps_no_study_waiting(listening, inbox, files, monkeypatch):
    keep, closed = inbox.keep, threading.Event()

    def keep_late(uids, content, association):
        association.dul.socket.close()
        receipt = keep(uids, content, association)
        closed.set()
        return receipt

    monkeypatch.setattr(inbox, "keep", keep_late)
    store(listening, files[:1])
    assert closed.wait(10)
    assert len(wait_for(lambda: inbox.due(0.0), 10)) == 1


def test_what_is_no_ct_is_refused_when_it_is_proposed(listening, inbox, tmp_path):
    picture = write_secondary_capture(tmp_path / "picture")
    assert store(listening, [picture]) == []
    assert received(inbox) == []


def test_searches_and_storage_commitment_are_refused_beside_a_slice_that_is_taken(listening, inbox, files):
    entity = AE(ae_title="PACS")
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    for others in (PATIENT_FIND, PATIENT_MOVE, STORAGE_COMMITMENT):
        entity.add_requested_context(others)
    association = entity.associate(listening.listen_host, listening.listen_port, ae_title=listening.aet)
    assert [context.abstract_syntax for context in association.accepted_contexts] == [CTImageStorage]
    assert association.send_c_store(dcmread(files[0])).Status == 0
    association.release()
    assert len(received(inbox)) == 1


@pytest.mark.parametrize("uid", [None, "..", "."])
@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_slice_without_a_usable_uid_is_refused(listening, inbox, tmp_path, name, uid):
    def change(dataset, _):
        if uid:
            setattr(dataset, name, uid)
        else:
            delattr(dataset, name)

    files = write_series(tmp_path / "series", small_volume(1), change=change)
    assert store(listening, files) == [0xA900]
    assert received(inbox) == []


def test_a_slice_that_is_not_what_its_sender_announces_is_refused(listening, inbox, files):
    dataset = dcmread(files[0])
    entity = AE(ae_title="PACS")
    entity.add_requested_context(CTImageStorage, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate(listening.listen_host, listening.listen_port, ae_title=listening.aet)
    announced = dataset.SOPInstanceUID
    dataset.SOPInstanceUID = generate_uid()
    content = files[0].with_name("odd")
    dataset.save_as(content)
    raw = content.read_bytes()
    content.write_bytes(raw)  # the meta information says one UID, the data set another
    assert dataset.file_meta.MediaStorageSOPInstanceUID == announced
    from pynetdicom import _config

    _config.STORE_SEND_CHUNKED_DATASET = True
    try:
        assert association.send_c_store(content).Status == 0xA900
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = False
        association.release()
    assert received(inbox) == []


def test_on_a_full_disk_nothing_is_taken(pacs, inbox, files):
    with DicomListener(pacs, inbox, free_bytes=2**62):
        assert store(pacs, files) == [0xA700] * 3
    assert received(inbox) == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DiskFullError("The disk is full.", "Free it."), 0xA700),
        (StorageError("It can't be written.", "Look."), 0xC000),
        (MemoryError("of Doe^John"), 0xC000),
    ],
)
def test_what_goes_wrong_is_a_status_and_the_next_is_served(
    listening, inbox, files, monkeypatch, caplog, error, status
):
    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(inbox, "keep", fail)
        assert store(listening, files[:1]) == [status]
    assert "Doe" not in caplog.text
    assert store(listening, files) == [0, 0, 0]


def test_a_study_waits_for_the_association_that_carries_it(listening, inbox, files):
    entity = AE(ae_title="PACS")
    entity.add_requested_context(CTImageStorage)
    association = entity.associate(listening.listen_host, listening.listen_port, ae_title=listening.aet)
    assert association.send_c_store(dcmread(files[0])).Status == 0
    assert inbox.due(0.0) == []
    association.release()
    assert len(wait_for(lambda: inbox.due(0.0), 10)) == 1


def test_without_a_known_title_it_does_not_listen(pacs, inbox):
    with (
        pytest.raises(SetupError, match="Nobody may send") as caught,
        DicomListener(replace(pacs, listen_from=()), inbox),
    ):
        raise AssertionError
    assert "LUNGSEG_LISTEN_FROM" in caught.value.remedy


def test_a_port_that_is_taken_is_named(pacs, inbox):
    with socket.socket() as other:
        other.bind(("127.0.0.1", pacs.listen_port))
        other.listen()
        with pytest.raises(SetupError, match=f"Port {pacs.listen_port} of 127.0.0.1"), DicomListener(pacs, inbox):
            raise AssertionError
