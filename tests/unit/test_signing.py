"""Signed addresses: who may fetch what, until when."""

import stat

import pytest

from lungseg.errors import AccessError, StorageError
from lungseg.web.signing import HOUR_S, KEY_FILE, LIFETIME_S, Grant, Kind, grant, secret_of, sign, verify

SECRET = b"k" * 32
NOW_S = 1_800_000_123.4


def test_round_trip():
    granted = grant(Kind.MASK, "0123", "feed", now_s=NOW_S)
    assert verify(SECRET, sign(SECRET, granted), now_s=NOW_S) == granted
    assert granted == Grant(Kind.MASK, "0123", "feed", granted.expires_s)


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
