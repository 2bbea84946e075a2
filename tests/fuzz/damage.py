"""How bytes, JSON and tables get damaged; all by a generator that is passed, so that each input can be made again."""

import copy
import gzip
import json
from typing import Any

import numpy as np

ABSURD: tuple[Any, ...] = (
    None, True, "", "x", "x" * 300, "a\0b", "../../x", "/etc/passwd", "\ud800", "\u202e", "1", "nan", -1, 0, 1, 2**31,
    2**63, 10**30, 1e308, -0.5, float("nan"), float("inf"), [], {}, [[]], [None], [1, 2, 3], {"x": 1}, {"": {"": {}}},
)  # fmt: skip
MOST_FLIPS = 20
DEEP = 5000
LARGE = 2_000_000
"""Characters of a text that is too long to be true."""


def damaged_bytes(raw, rng, others=()):
    """Damage bytes of any kind; `others` are further files of the same kind to splice with."""
    ways = (flipped, cut, spliced, overwritten, doubled, extended)
    way = ways[rng.integers(len(ways))]
    return spliced(raw, rng, others) if way is spliced else way(raw, rng)


def flipped(raw, rng, *, within=None):
    """Flip single bits, all of them among the first `within` bytes where that is given."""
    changed = bytearray(raw)
    end = min(len(changed), within or len(changed))
    for at in rng.integers(end, size=rng.integers(1, MOST_FLIPS)) if end else ():
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(raw, rng):
    """Leave off the end."""
    return raw[: int(rng.integers(len(raw) + 1))]


def spliced(raw, rng, others=()):
    """Put a part of another file, or of this one, somewhere."""
    other = others[rng.integers(len(others))] if others else raw
    first, last = sorted(int(at) for at in rng.integers(len(other) + 1, size=2))
    at = int(rng.integers(len(raw) + 1))
    return raw[:at] + other[first:last] + raw[at + (last - first if rng.random() < 0.5 else 0) :]


def overwritten(raw, rng):
    """Set a run of bytes to zeros, to ones, or at random."""
    at, length = int(rng.integers(len(raw) + 1)), int(rng.integers(1, 64))
    fill = (bytes(length), b"\xff" * length, rng.bytes(length))[rng.integers(3)]
    return raw[:at] + fill + raw[at + length :]


def doubled(raw, rng):
    """Write it twice."""
    return raw * 2


def extended(raw, rng):
    """Append zeros or noise."""
    length = int(rng.choice([1, 7, 512, 65_536]))
    return raw + (bytes(length) if rng.random() < 0.5 else rng.bytes(length))


def damaged_json(raw, rng):
    """Damage JSON: its text, or values in it."""
    if rng.random() < 0.3:
        return damaged_json_text(raw, rng)
    root = json.loads(raw)
    for _ in range(rng.integers(1, 4)):
        root = _changed(root, rng)
    return json.dumps(root).encode()


def damaged_json_text(raw, rng):
    """Damage the text of JSON, so that mostly it is none."""
    at = int(rng.integers(len(raw) + 1))
    ways = (
        lambda: raw[:at] + b"\xff\xfe" + raw[at:],
        lambda: b"[" * DEEP + raw + b"]" * DEEP,
        lambda: b'{"a":' * DEEP,
        lambda: raw.decode().encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + raw,
        lambda: raw.replace(b"1", b"9" * int(rng.choice([30, 400, 5000])), 3),
        lambda: raw.replace(b":", b": " + b"[" * 150 + b"]" * 150 + b', "x":', 1),
        lambda: b'{"x": "' + b"a" * LARGE + b'", ' + raw.lstrip()[1:],
        lambda: (b"", b"null", b"7", b'"x"', b"[]", b"{}", b"NaN", b"\0")[rng.integers(8)],
        lambda: damaged_bytes(raw, rng),
    )
    return ways[rng.integers(len(ways))]()


def _changed(root, rng):
    """Change one value somewhere inside, or the whole."""
    places = list(_places(root))
    if not places or rng.random() < 0.02:
        return _absurd(rng)
    holder, key = places[rng.integers(len(places))]
    way = rng.integers(4)
    if way == 0:
        del holder[key]
    elif way == 1:
        other, name = places[rng.integers(len(places))]
        holder[key] = json.loads(json.dumps(other[name]))
    elif way == 2 and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    else:
        holder[key] = _absurd(rng)
    return root


def _places(value):
    """Yield each holder with each of its keys; of long lists the first ones."""
    if isinstance(value, dict):
        inner = list(value)
    else:
        inner = list(range(min(len(value), 12))) if isinstance(value, list) else []
    for key in inner:
        yield value, key
        yield from _places(value[key])


def _absurd(rng):
    if rng.random() < 0.1:
        value: Any = []
        for _ in range(int(rng.choice([20, 150]))):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    return copy.deepcopy(ABSURD[rng.integers(len(ABSURD))])


def damaged_table(raw, rng):
    """Damage CSV: its text, or fields in it."""
    if rng.random() < 0.4:
        return damaged_bytes(raw, rng)
    rows = [line.split(",") for line in raw.decode().splitlines()]
    for _ in range(rng.integers(1, 4)):
        row = rows[rng.integers(len(rows))]
        at = int(rng.integers(len(row)))
        way = rng.integers(5)
        if way == 0:
            del row[at]
        elif way == 1:
            row.insert(at, '"')
        elif way == 2:
            row[at] = "x" * 200_000
        else:
            row[at] = str(ABSURD[rng.integers(len(ABSURD))])
        rows = [each for each in rows if each]
        if not rows:
            return b""
    return "\n".join(",".join(row) for row in rows).encode(errors="surrogatepass")


def packed_wrongly(raw, rng):
    """Gzip bytes, or damage the gzip that they are."""
    packed = raw if raw[:2] == b"\x1f\x8b" else gzip.compress(raw, 1)
    ways = (
        lambda: gzip.compress(packed, 1),
        lambda: flipped(packed, rng),
        lambda: flipped(packed, rng, within=12),
        lambda: cut(packed, rng),
        lambda: packed[:10] + rng.bytes(200),
        lambda: packed + bytes(1000),
        lambda: packed + gzip.compress(bytes(32 * 1024**2), 1),
        lambda: packed[:-8] + bytes(8),
        lambda: packed[:-4] + np.uint32(2**32 - 1).tobytes(),
    )
    return ways[rng.integers(len(ways))]()
