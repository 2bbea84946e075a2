"""The weights file of a checkpoint, without torch: the card in its metadata, and the sha256 that leaves it out.

A safetensors file is a length (8 bytes, little-endian), a header of that length, and the values of the tensors. The
header is JSON, padded with spaces to a multiple of 8 bytes: type, shape and place of each tensor, and under
`__metadata__` texts by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from lungseg.decoding import decode
from lungseg.errors import CheckpointError

METADATA, CARD = "__metadata__", "lungseg_card"
LENGTH_BYTES = 8
LONGEST_HEADER = 24 * 1024**2
"""Bytes; our headers have about ten thousand, most of them the card's."""
CHUNK = 1024**2


def read_card_text(path: Path) -> str | None:
    """Return the card in a weights file, as JSON; None without one, or if the file can't be read."""
    try:
        with path.open("rb") as stream:
            header = _read_header(stream)
    except (OSError, ValueError):
        return None
    return _metadata_of(header).get(CARD)


def weights_sha256(path: Path) -> str:
    """Hash a weights file as it is without the card in it; raises OSError if it can't be read.

    The hash of a file without a card, as older releases wrote it, is that of all its bytes.
    """
    with path.open("rb") as stream:
        header = _read_header(stream)
        if CARD in _metadata_of(header):
            digest = hashlib.sha256(_packed(_without_card(header)))
        else:
            stream.seek(0)
            digest = hashlib.sha256()
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def with_card(content: bytes, card: str) -> bytes:
    """Return a weights file's content with this card; raises CheckpointError for what is no safetensors file."""
    end = LENGTH_BYTES + int.from_bytes(content[:LENGTH_BYTES], "little")
    header = _decoded(content[LENGTH_BYTES:end])
    if not header:
        raise _damaged("it is no safetensors file")
    tensors = {key: value for key, value in header.items() if key != METADATA}
    return _packed({METADATA: {**_metadata_of(header), CARD: card}, **tensors}) + content[end:]


def _read_header(stream: BinaryIO) -> Mapping[str, object]:
    """Read the header at the beginning of a file; empty without one."""
    length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
    return _decoded(stream.read(length)) if length <= LONGEST_HEADER else {}


def _decoded(header: bytes) -> Mapping[str, object]:
    try:
        return decode(dict[str, object], header, _damaged)
    except CheckpointError:
        return {}


def _metadata_of(header: Mapping[str, object]) -> dict[str, str]:
    metadata = header.get(METADATA)
    return {key: text for key, text in metadata.items() if isinstance(text, str)} if isinstance(metadata, dict) else {}


def _without_card(header: Mapping[str, object]) -> dict[str, object]:
    """Return a header as it was without the card."""
    others = {key: text for key, text in _metadata_of(header).items() if key != CARD}
    tensors = {key: value for key, value in header.items() if key != METADATA}
    return {METADATA: others, **tensors} if others else tensors


def _packed(header: Mapping[str, object]) -> bytes:
    """Write length and header as the safetensors library does."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _damaged(reason: str) -> CheckpointError:
    return CheckpointError(f"The weights can't be read ({reason}).", "Copy both files of the checkpoint again.")
