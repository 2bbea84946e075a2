"""Signed addresses: who may fetch what, until when."""

import errno
import multiprocessing
import os
import stat
from concurrent.futures import ProcessPoolExecutor

import pytest
from itsdangerous import URLSafeSerializer

from lungseg.errors import AccessError, DiskFullError, StorageError
from lungseg.web.signing import HOUR_S, KEY_FILE, LIFETIME_S, Grant, Kind, grant, secret_of, sign, verify

SECRET = b"k" * 32
NOW_S = 1_800_000_123.4


def test_round_trip():
    granted = grant(Kind.MASK, "0123", "feed", now_s=NOW_S)
    assert verify(SECRET, sign(SECRET, granted), now_s=NOW_S) == granted
    assert granted == Grant(Kind.MASK, "0123", "feed", granted.expires_s)


def test_address_of_a_release_before_is_valid_until_it_expires():
    token = URLSafeSerializer(SECRET, salt="lungseg.files").dumps(["mask", "0123", "feed", int(NOW_S) + 60])
    assert verify(SECRET, token, now_s=NOW_S) == Grant(Kind.MASK, "0123", "feed", int(NOW_S) + 60)


def test_address_stays_the_same_within_an_hour_and_lasts_a_session():
    start = NOW_S - NOW_S % HOUR_S
    first, last = (grant(Kind.SCAN, "0123", "feed", now_s=moment) for moment in (start, start + HOUR_S - 1))
    assert sign(SECRET, first) == sign(SECRET, last)
    assert first.expires_s - (start + HOUR_S - 1) >= LIFETIME_S
    assert sign(SECRET, grant(Kind.SCAN, "0123", "feed", now_s=start + HOUR_S)) != sign(SECRET, first)


def test_expired():
    granted = grant(Kind.SCAN, "0123", "feed", now_s=NOW_S)
    token = sign(SECRET, granted)
    verify(SECRET, token, now_s=granted.expires_s - 1)
    with pytest.raises(AccessError, match=r"expired\. Reload the page"):
        verify(SECRET, token, now_s=granted.expires_s)


def test_of_another_installation():
    token = sign(b"o" * 32, grant(Kind.SCAN, "0123", "feed", now_s=NOW_S))
    with pytest.raises(AccessError, match="not made by this server"):
        verify(SECRET, token, now_s=NOW_S)


@pytest.mark.parametrize("token", ["", "x", "a.b", "../../etc/passwd", "WyJzY2FuIl0.AAAA"])
def test_nonsense(token):
    with pytest.raises(AccessError, match="not made by this server"):
        verify(SECRET, token, now_s=NOW_S)


def test_no_letter_of_a_token_can_be_changed():
    token = sign(SECRET, grant(Kind.SCAN, "0123", "feed", now_s=NOW_S))
    for at in range(len(token) - 1):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        with pytest.raises(AccessError):
            verify(SECRET, changed, now_s=NOW_S)


def test_secret_is_made_once_for_its_owner_alone(settings):
    secret = secret_of(settings)
    assert len(secret) == 32
    assert secret_of(settings) == secret
    assert stat.S_IMODE((settings.home / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in settings.home.iterdir()] == [KEY_FILE]


def test_secret_that_others_may_read_is_refused(settings):
    secret_of(settings)
    (settings.home / KEY_FILE).chmod(0o644)
    with pytest.raises(StorageError, match=r"Others may read secret\.key.*chmod 600"):
        secret_of(settings)


WEAK = {
    "empty": b"",
    "short": bytes(range(31)),
    "zeros": bytes(32),
    "one letter": b"k" * 4096,
    "a pattern": b"secret" * 8,
    "digits": b"01234567890123456789012345678901\n",
}


@pytest.mark.parametrize("secret", WEAK.values(), ids=WEAK)
def test_secret_that_can_be_guessed_is_refused(settings, secret):
    path = settings.home / KEY_FILE
    path.touch(mode=0o600)
    path.write_bytes(secret)
    with pytest.raises(StorageError, match=r"secret\.key is not safe: \d+ bytes.*Delete secret\.key.*a new one.*void"):
        secret_of(settings)
    assert path.read_bytes() == secret, "nothing is replaced behind the administrator's back"
    path.unlink()
    assert len(secret_of(settings)) == 32


@pytest.mark.parametrize("secret", [b"0f1e2d3c4b5a69788796a5b4c3d2e1f0", bytes(range(32)), bytes(range(256))])
def test_secret_of_the_administrators_own_is_used(settings, secret):
    path = settings.home / KEY_FILE
    path.touch(mode=0o600)
    path.write_bytes(secret)
    assert secret_of(settings) == secret


def test_secret_is_on_the_disk_before_it_has_its_name(settings, monkeypatch):
    """After a power cut there is no key, or a whole one: never a name without content."""
    steps = []
    fsync, link = os.fsync, os.link

    def noted_fsync(descriptor):
        found = os.fstat(descriptor)
        steps.append("names" if stat.S_ISDIR(found.st_mode) else f"file of {found.st_size}")
        fsync(descriptor)

    def noted_link(source, target):
        steps.append("link")
        link(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    secret_of(settings)
    assert steps == ["file of 32", "link", "names"]


def test_processes_that_start_at_once_agree_on_one_secret(settings):
    for _ in range(5):
        with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as processes:
            assert len(set(processes.map(secret_of, [settings] * 8))) == 1
        (settings.home / KEY_FILE).unlink()


def test_secret_of_whoever_was_first_stays(settings, monkeypatch):
    link = os.link

    def late(source, target):
        target.touch(mode=0o600)
        target.write_bytes(bytes(range(32)))
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert secret_of(settings) == bytes(range(32))
    assert [path.name for path in settings.home.iterdir()] == [KEY_FILE]


def test_secret_without_room_is_refused(settings, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"disk is full\. Delete cases"):
        secret_of(settings)
    assert list(settings.home.iterdir()) == []
