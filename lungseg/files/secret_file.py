"""Secrets in files that only their owner may read."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path

from lungseg.errors import StorageError
from lungseg.files import atomic

SECRET_BYTES = 32
LEAST_DISTINCT = 12
"""Of 32 random bytes about 30 differ, of a random key in hexadecimal digits at least 12; fewer of zeros, one letter, a
pattern or digits, as a power cut or a hand leaves them."""


def secret_in(path: Path, *, if_weak: str) -> bytes:
    """Return the secret in a file, made at the first call; only its owner may read the file.

    Args:
        path: of the file, in LUNGSEG_HOME.
        if_weak: remedy where the secret could be guessed.

    Raises:
        DiskFullError: there is no room to make it.
        StorageError: it can't be read or written, others may read it, or it could be guessed.
    """
    name = path.name
    try:
        if not path.exists():
            atomic.write_first(path, secrets.token_bytes(SECRET_BYTES))
        if stat.S_IMODE(path.stat().st_mode) & atomic.OTHERS:
            raise StorageError(
                f"Others may read {name}.", f"Run `chmod 600 {name}` in LUNGSEG_HOME, or delete the file."
            )
        secret = path.read_bytes()
    except OSError as error:
        raise StorageError(f"{name} can't be used ({error.strerror}).", "Check the rights of LUNGSEG_HOME.") from error
    if len(secret) < SECRET_BYTES or len(set(secret)) < LEAST_DISTINCT:
        raise StorageError(
            f"{name} is not safe: {len(secret)} bytes with {len(set(secret))} different values, expected at least "
            f"{SECRET_BYTES} with {LEAST_DISTINCT}.",
            if_weak,
        )
    return secret
