"""Files of numbers with a header (safetensors, npy, npz), and how they get damaged."""

import io
import json

import numpy as np

from tests.fuzz.damage import damaged_bytes, damaged_json, flipped

ODD_NUMBERS = (0, 1, -1, 7, 255, 2**31, 2**62, -(2**62))
ODD_SHAPES = (
    "()",
    "(0,)",
    "(-1, 2)",
    "(4, 256, 256)",
    "(10**12,)",
    "(1,)*70",
    "(((((",
    "(True, 2)",
    "(None,)",
    "'x'",
    "(1e9,)",
)
ODD_REALS = (0.0, np.nan, np.inf, 1e300, -1e-300)
ODD_TYPES = ("'<i2'", "'>i2'", "'|u1'", "'<f8'", "'|O'", "'<U9'", "'<i99'", "[('a', '<i2')]", "None", "7", "'V2'")


def damaged_tensors(raw, rng, others):
    """Damage safetensors: values in its header, with the right length, or any bytes."""
    if rng.random() < 0.5:
        return damaged_bytes(raw, rng, others) if rng.random() < 0.5 else flipped(raw, rng, within=200)
    end = 8 + int.from_bytes(raw[:8], "little")
    header = damaged_json(raw[8:end], rng)
    return len(header).to_bytes(8, "little") + header + raw[end:]


def damaged_numbers(raw, rng, others):
    """Damage the numbers in the metadata of safetensors, or the file itself."""
    if rng.random() < 0.4:
        return damaged_tensors(raw, rng, others)
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:end])
    numbers = damaged_json(header["__metadata__"]["numbers"].encode(), rng)
    header["__metadata__"]["numbers"] = numbers.decode(errors="replace")
    changed = json.dumps(header).encode()
    return len(changed).to_bytes(8, "little") + changed + raw[end:]


def damaged_array(raw, rng, others):
    """Damage an npy file: its header, with the right length, or any bytes."""
    if rng.random() < 0.5:
        return damaged_bytes(raw, rng, others) if rng.random() < 0.5 else flipped(raw, rng, within=140)
    shape, kind = rng.choice(ODD_SHAPES), rng.choice(ODD_TYPES)
    header = {
        0: f"{{'descr': {kind}, 'fortran_order': False, 'shape': (18, 256, 256), }}",
        1: f"{{'descr': '<i2', 'fortran_order': False, 'shape': {shape}, }}",
        2: f"{{'descr': {kind}, 'fortran_order': {shape}, 'shape': {shape}, }}",
        3: "{'descr': '<i2', " + "(" * 3000,
    }[int(rng.integers(4))]
    version = rng.choice([1, 2, 3, 9])
    text = header.encode() + b"\n"
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + raw[128:]


def damaged_archive(raw, rng, others):
    """Damage an npz file: its arrays, whole again in an archive, or any bytes."""
    if rng.random() < 0.4:
        return damaged_bytes(raw, rng, others)
    with np.load(io.BytesIO(raw)) as stored:
        arrays = dict(stored)
    name = str(rng.choice(list(arrays)))
    ways = (
        lambda: arrays.pop(name),
        lambda: arrays.update({name: arrays[name][:-1]}),
        lambda: arrays.update({name: arrays[name].astype(rng.choice(["f4", "i2", "u8", "c16", ">i8", "?"]))}),
        lambda: arrays.update({name: np.array(["x", "y"])}),
        lambda: arrays.update({name: np.asfortranarray(arrays[name])}),
        lambda: arrays.update({"canvases": np.zeros((400, 512, 512), np.uint8)}),
        lambda: arrays["frame"].__setitem__(rng.integers(7), rng.choice(ODD_NUMBERS)),
        lambda: arrays["shape"].__setitem__(rng.integers(3), rng.choice(ODD_NUMBERS)),
        lambda: arrays["affine"].__setitem__(tuple(rng.integers(4, size=2)), rng.choice(ODD_REALS)),
    )  # fmt: skip
    ways[rng.integers(len(ways))]()
    target = io.BytesIO()
    (np.savez if rng.random() < 0.3 else np.savez_compressed)(target, **arrays)
    return target.getvalue() if rng.random() < 0.7 else flipped(target.getvalue(), rng)
