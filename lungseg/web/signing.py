"""Signed addresses: each grants one file for a while, to whoever has the page with it.

A route can be reached without the page, so an address states what it grants and until when, with a signature by a
secret of this installation. Expiry is rounded to hours: within an hour the address stays, and the browser's copy.
"""

from __future__ import annotations

import time
from dataclasses import astuple, dataclass
from enum import StrEnum

from itsdangerous import BadSignature, URLSafeSerializer

from lungseg.config import Settings
from lungseg.errors import AccessError
from lungseg.files.secret_file import secret_in

KEY_FILE = "secret.key"
HOUR_S = 3600
LIFETIME_S = 12 * HOUR_S
"""A reading session: a page that stays open longer has to be reloaded before it can fetch something new."""
SALT = "lungseg.files"


class Kind(StrEnum):
    """What a file is; UPLOAD is no file, but leave to hand one in."""

    SCAN = "scan"
    MASK = "mask"
    THUMBNAIL = "thumbnail"
    PICTURE = "picture"
    UPLOAD = "upload"


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to fetch one file, or to upload.

    Attributes:
        kind: what it is.
        id: of the case or mask it belongs to; `<mask>.<level>` for a mask at another threshold; for a picture of a
            data set its id and the name of the case.
        content: sha256 of its bytes, or another value that changes with them.
        expires_s: Unix time from which the grant is void.
    """

    kind: Kind
    id: str
    content: str
    expires_s: int


def grant(kind: Kind, record_id: str, content: str, *, now_s: float | None = None) -> Grant:
    """Make a grant that lasts for `LIFETIME_S`, to the next full hour."""
    now = time.time() if now_s is None else now_s
    return Grant(kind, record_id, content, (int(now) // HOUR_S + 1) * HOUR_S + LIFETIME_S)


def sign(secret: bytes, granted: Grant) -> str:
    """Turn a grant into the token of an address."""
    return URLSafeSerializer(secret, salt=SALT).dumps(astuple(granted))


def verify(secret: bytes, token: str, *, now_s: float | None = None) -> Grant:
    """Read a token back.

    Raises:
        AccessError: it was not signed with this secret, or has expired.
    """
    try:
        kind, *others = URLSafeSerializer(secret, salt=SALT).loads(token)
        granted = Grant(Kind(kind), *others)
    except (BadSignature, ValueError) as error:
        raise AccessError("The address was not made by this server.", "Open the case again from its page.") from error
    if granted.expires_s <= (time.time() if now_s is None else now_s):
        raise AccessError("The address has expired.", "Reload the page.")
    return granted


def secret_of(settings: Settings) -> bytes:
    """Return the secret of an installation that signs its addresses; raises as `secret_in`."""
    # With a secret that can be guessed, whoever reaches the server can sign an address of every scan.
    return secret_in(
        settings.home / KEY_FILE,
        if_weak=f"Delete {KEY_FILE} in LUNGSEG_HOME: a new one is made, and addresses handed out before are void.",
    )
