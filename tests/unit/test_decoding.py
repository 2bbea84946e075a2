"""The one decoder: what it takes, what it refuses, and that it does so in little time and memory."""

import json
import math
import os
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from lungseg import decoding
from lungseg.decoding import Finite, Measure, Natural, decode, decode_file, decode_value, encode
from lungseg.errors import DataSetError


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Inner:
    number: Natural
    real: Finite = 0.5


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    inner: Inner
    pairs: tuple[tuple[Natural, Natural], ...] = ()
    path: Path | None = None
    colour: Colour = Colour.RED
    rest: dict[str, Any] = field(default_factory=dict)


GOOD = Outer("x", Inner(3), ((1, 2), (3, 4)), Path("a/b"), Colour.RED, {"any": [1, None]})


def refuse(reason):
    return DataSetError(f"refused: {reason}", "Do something.")


def changed(**values):
    return json.dumps(json.loads(encode(GOOD)) | values)


def test_what_is_encoded_is_decoded():
    assert decode(Outer, encode(GOOD), refuse) == GOOD
    assert decode_value(Outer, json.loads(encode(GOOD)), refuse) == GOOD


def test_missing_values_have_defaults_and_unknown_keys_are_passed_over():
    assert decode(Outer, '{"name": "x", "inner": {"number": 1, "newer": 2}, "newer": []}', refuse) == Outer(
        "x", Inner(1)
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff" + encode(GOOD), "Invalid JSON"),
        (encode(GOOD).replace(b"x", b"\xff"), "Invalid JSON"),
        (encode(GOOD)[:-9], "Invalid JSON"),
        (b"", "Invalid JSON"),
        (b"[" * 200_000, "recursion limit"),
        (b'{"rest": ' + b"[" * 500 + b"]" * 500 + b"}", "recursion limit"),
        (b"[]", "should be an object"),
        (b"null", "should be an object"),
        (changed(inner=[]), "^refused: inner: "),
        (changed(inner={"number": -1}), r"inner\.number"),
        (changed(inner={"number": 10**30}), r"inner\.number"),
        (changed(inner={"number": 1, "real": 1e300}), r"inner\.real"),
        (changed(inner={"number": 1, "real": float("nan")}), r"inner\.real"),
        (changed(inner={"number": 1, "real": None}), r"inner\.real"),
        (changed(pairs=[[1, 2], [3]]), r"pairs\.1\.1"),
        (changed(pairs="ab"), "pairs"),
        (changed(colour="blue"), "colour"),
        (changed(name=7), "name"),
        ('{"name": "x"}', "inner: Field required"),
        (changed(path="9" * 5).replace('"99999"', "9" * 5000), "out of range"),
    ],
)
def test_what_is_something_else_is_refused_with_its_place(data, reason):
    with pytest.raises(DataSetError, match=reason):
        decode(Outer, data, refuse)


def test_reason_holds_no_value():
    with pytest.raises(DataSetError) as caught:
        decode(Outer, changed(inner={"number": "Doe^Jane"}), refuse)
    assert "Doe" not in str(caught.value)


def test_names_of_files_that_are_not_utf8_survive(tmp_path):
    odd = os.fsdecode(b"lung\xfc.nii")
    text = json.dumps({"name": odd, "inner": {"number": 1}, "path": odd})
    for data in (text, text.encode(), json.dumps(json.loads(text), ensure_ascii=False)):
        assert decode(Outer, data, refuse) == Outer(odd, Inner(1), path=Path(odd))
    for inside in ("[" * 500 + "]" * 500, "[" * 100_000):
        with pytest.raises(DataSetError, match=r"nested too deeply|no JSON"):
            decode(Outer, text[:-1] + f', "rest": {{"a": {inside}}}}}', refuse)


def test_byte_order_mark_is_passed_over():
    assert decode(Outer, b"\xef\xbb\xbf" + encode(GOOD), refuse) == GOOD


def test_measure_may_be_nan_and_nothing_absurd():
    kind = tuple[Measure, ...]
    assert decode(kind, "[1.5, NaN]", refuse)[0] == 1.5
    assert math.isnan(decode(kind, "[null]", refuse)[0])  # as JSON of ours writes NaN
    for text in ("[1e16]", "[-Infinity]", '["x"]', "[[]]"):
        with pytest.raises(DataSetError):
            decode(kind, text, refuse)


def test_files_that_can_not_be_read_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_bytes(encode(GOOD))
    assert decode_file(Outer, path, refuse) == GOOD
    os.mkfifo(tmp_path / "pipe")
    for wrong, reason in (
        (tmp_path / "none", "No such file"), (tmp_path, "it is no file"), (tmp_path / "pipe", "it is no file"),
        (tmp_path / ("x" * 300), "too long"), (tmp_path / "a\0b", "no file can have its name"),
    ):  # fmt: skip
        with pytest.raises(DataSetError, match=reason):
            decode_file(Outer, wrong, refuse)
    monkeypatch.setattr(decoding, "MOST_BYTES", 10)
    with pytest.raises(DataSetError, match="more than 10 bytes"):
        decode_file(Outer, path, refuse)


def test_long_list_of_wrong_items_ends_at_the_first():
    started = time.perf_counter()
    with pytest.raises(DataSetError, match=r"^refused: 0: "):
        decode(tuple[str, ...], "[" + "1," * 2_000_000 + "1]", refuse)
    assert time.perf_counter() - started < 2.0
