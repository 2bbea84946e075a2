"""Unpacking: every file comes out once and whole, nothing is believed, and what is lost is named."""

import bz2
import gzip
import io
import itertools
import os
import re
import stat
import struct
import tarfile
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its documentation calls it so

from lungseg import errors
from lungseg.config import Limits
from lungseg.intake import budget as budgets
from lungseg.intake.survey import _of_lost, contents_of
from lungseg.intake.unpack import is_archive, unpack
from lungseg.scans import formats
from tests.phantoms import write_chest

FILES = {"IM1": b"first" * 100, "series/IM2": b"second" * 50, "series/deep/IM3": bytes(range(256)) * 9}


def zipped(path, files=FILES, method=zipfile.ZIP_DEFLATED, **options):
    with zipfile.ZipFile(path, "w", method, **options) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, content)
    return path


def tarred(path, files=FILES, mode="w", **options):
    with tarfile.open(path, mode, **options) as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def contents(unpacked):
    return [path.read_bytes() for path in unpacked.files]


def unpacked_of(tmp_path, *sources, limits=None, **options):
    return unpack(sources, tmp_path / "target", limits=limits or Limits(), **options)


MAKERS = {
    "zip": lambda p: zipped(p / "a.zip"),
    "zip, stored": lambda p: zipped(p / "a.zip", method=zipfile.ZIP_STORED),
    "tar": lambda p: tarred(p / "a.tar"),
    "tar of GNU": lambda p: tarred(p / "a.tar", format=tarfile.GNU_FORMAT),
    "tar, old": lambda p: tarred(p / "a.tar", format=tarfile.USTAR_FORMAT),
    "tar.gz": lambda p: tarred(p / "a.tgz", mode="w:gz"),
    "name that lies": lambda p: zipped(p / "a.nii.gz"),
}


@pytest.mark.parametrize("name", MAKERS)
def test_members_are_taken_under_names_of_ours(tmp_path, name):
    source = MAKERS[name](tmp_path)
    assert is_archive(source)
    unpacked = unpacked_of(tmp_path, source)
    assert contents(unpacked) == list(FILES.values())
    assert [path.relative_to(tmp_path / "target").as_posix() for path in unpacked.files] == [
        "000001", "000002", "000003",
    ]  # fmt: skip
    assert (unpacked.ignored, unpacked.lost) == ({}, ())
    assert source.exists()


def test_files_and_folders_are_linked_and_stay(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "b").write_bytes(b"b")
    (folder / "a").write_bytes(b"a")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "empty").write_bytes(b"")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "outside").symlink_to("/etc")
    os.mkfifo(folder / "pipe")
    (tmp_path / "alone").write_bytes(b"alone")
    unpacked = unpacked_of(tmp_path, folder, tmp_path / "alone")
    assert contents(unpacked) == [b"a", b"b", b"alone"]
    assert unpacked.ignored == {
        "left by an operating system": 2, "an empty file": 1, "a link": 1, "a device": 1,
    }  # fmt: skip
    assert unpacked.files[0].stat().st_ino == (folder / "a").stat().st_ino


def test_copies_where_no_link_can_be(tmp_path, monkeypatch):
    def no_link(*_):
        raise OSError

    monkeypatch.setattr(os, "link", no_link)
    (tmp_path / "a").write_bytes(b"a")
    assert contents(unpacked_of(tmp_path, tmp_path / "a")) == [b"a"]


def test_gzipped_slice_is_unpacked_and_gzipped_nifti_is_not(tmp_path):
    write_chest(tmp_path / "scan.nii.gz")
    (tmp_path / "slice.dcm.gz").write_bytes(gzip.compress(b"slice" * 99))
    unpacked = unpacked_of(tmp_path, tmp_path / "scan.nii.gz", tmp_path / "slice.dcm.gz")
    assert contents(unpacked) == [(tmp_path / "scan.nii.gz").read_bytes(), b"slice" * 99]


def test_names_lead_nowhere(tmp_path):
    names = ["../../evil", "/etc/evil", "C:\\evil", "a/../../b", "x" * 250, "é\u202e\n", "con", "..", "dup", "dup"]
    with pytest.warns(UserWarning, match="Duplicate"):
        source = zipped(tmp_path / "a.zip", [(name, name.encode() + b"!") for name in names])
    unpacked = unpacked_of(tmp_path, source)
    assert contents(unpacked) == [name.encode() + b"!" for name in names]
    assert {path.parent for path in unpacked.files} == {tmp_path / "target"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "target"]


def test_member_without_a_name_is_taken(tmp_path):
    source = zipped(tmp_path / "a.zip", {"n": b"nameless"})
    raw = bytearray(source.read_bytes())
    with zipfile.ZipFile(source) as archive:
        start = archive.start_dir
    raw[start + 28], raw[start + 32] = 0, 1  # its name becomes its comment
    source.write_bytes(raw)
    assert contents(unpacked_of(tmp_path, source)) == [b"nameless"]


def test_what_is_no_file_is_left_where_it_is(tmp_path):
    source = tmp_path / "a.tar"
    with tarfile.open(source, "w") as archive:
        for kind in (
            tarfile.SYMTYPE,
            tarfile.LNKTYPE,
            tarfile.CHRTYPE,
            tarfile.BLKTYPE,
            tarfile.FIFOTYPE,
            tarfile.DIRTYPE,
        ):
            info = tarfile.TarInfo(f"m{kind!r}")
            info.type = kind
            archive.addfile(info)
        info = tarfile.TarInfo("__MACOSX/._IM1")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"mac"))
        info = tarfile.TarInfo("IM1")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"one"))
    unpacked = unpacked_of(tmp_path, source)
    assert contents(unpacked) == [b"one"]
    assert unpacked.ignored == {"a link": 2, "a device": 3, "left by an operating system": 1}


def test_links_and_devices_in_a_zip_are_left_where_they_are(tmp_path):
    source = tmp_path / "a.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for name, mode in (
            ("link", stat.S_IFLNK),
            ("pipe", stat.S_IFIFO),
            ("folder", stat.S_IFDIR),
            ("file", stat.S_IFREG),
        ):
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, b"/etc/passwd")
    unpacked = unpacked_of(tmp_path, source)
    assert len(unpacked.files) == 1
    assert unpacked.ignored == {"a link": 1, "a device": 1}


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_in_a_tar_are_understood(tmp_path, kind):
    files = {f"{'d' * 90}/{'e' * 90}/{'f' * 40}.mhd": MHD.format("grüße.raw").encode(), "IM2": b"2"}
    files[f"{'d' * 90}/{'e' * 90}/grüße.raw"] = VOXELS.tobytes(order="F")
    unpacked = unpacked_of(tmp_path, tarred(tmp_path / "a.tar", files, format=kind))
    assert len(unpacked.files) == 2
    np.testing.assert_array_equal(formats.read_volume(unpacked.files[0]).hu[::-1, ::-1], VOXELS)


def with_fields(path, fields, size=600):
    """Write a tar archive of a member with fields of pax, whose header states `size`, and of a plain second one."""
    lines = b""
    for key, value in fields.items():
        rest = len(f" {key}={value}\n")
        length = rest + len(str(rest + 2))
        lines += f"{length} {key}={value}\n".encode()
    records = tar_header(kind=b"x", size=b"%011o\0" % len(lines)) + lines.ljust(512, b"\0")
    first = tar_header(size=b"%011o\0" % size) + (b"1" * 600).ljust(1024, b"\0")
    second = tar_header(size=b"%011o\0" % 600) + (b"2" * 600).ljust(1024, b"\0")
    path.write_bytes(records + first + second + bytes(1024))
    return path


def test_length_in_a_tar_that_only_pax_states(tmp_path):
    """As the drop zone writes files of 8 GiB and more."""
    source = with_fields(tmp_path / "a.tar", {"size": "600"}, size=0)
    assert contents(unpacked_of(tmp_path, source)) == [b"1" * 600, b"2" * 600]


@pytest.mark.parametrize("size", ["-1", "", "9" * 21, "0x10"])
def test_odd_lengths_in_pax(tmp_path, size):
    with pytest.raises(errors.DamagedArchiveError, match="no length"):
        unpacked_of(tmp_path, with_fields(tmp_path / "a.tar", {"size": size}))


@pytest.mark.parametrize("line", [b"0 a=b\n", b"99 a=b\n", b"6 a=b ", b"5 ab\n", b"123456789 a=b\n", b"hello"])
def test_damaged_fields_of_pax(tmp_path, line):
    raw = tar_header(kind=b"x", size=b"%011o\0" % len(line)) + line.ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(raw + tar_header() + bytes(2048))
    with pytest.raises(errors.DamagedArchiveError, match="extended header"):
        unpacked_of(tmp_path, tmp_path / "a.tar")


def sparse_of_gnu(path):
    header = bytearray(tar_header(kind=b"S", size=b"00000000100\0"))
    header[482] = 1
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    goes_on, last = bytearray(512), bytes(512)
    goes_on[504] = 1
    path.write_bytes(header + goes_on + last + b"s" * 64 + bytes(448) + tar_header() + b"12345678" + bytes(1528))
    return path


def sparse_of_pax(path):
    return with_fields(path, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "IM1"})


@pytest.mark.parametrize("make", [sparse_of_gnu, sparse_of_pax])
def test_slice_that_is_packed_without_its_zeros_is_named_and_costs_itself_alone(tmp_path, make):
    unpacked = unpacked_of(tmp_path, make(tmp_path / "a.tar"))
    assert len(unpacked.files) == 1
    (lost,) = unpacked.lost
    assert "without its zeros" in lost.error.found


def test_link_in_a_tar_that_states_the_length_of_its_file(tmp_path):
    link = tar_header(name=b"again", kind=b"1")
    (tmp_path / "a.tar").write_bytes(tar_header() + b"12345678" + bytes(504) + link + tar_header() + bytes(1536))
    unpacked = unpacked_of(tmp_path, tmp_path / "a.tar")
    assert contents(unpacked) == [b"12345678", bytes(8)]
    assert unpacked.ignored == {"a link": 1}


def test_archives_in_an_archive_are_unpacked_and_deeper_ones_are_named(tmp_path):
    zipped(tmp_path / "c.zip", {"deepest": b"x"})
    zipped(tmp_path / "b.zip", {"c.zip": (tmp_path / "c.zip").read_bytes(), "inner": b"inner"})
    tarred(tmp_path / "b.tgz", {"slice": b"slice"}, mode="w:gz")
    files = {"b.zip": (tmp_path / "b.zip").read_bytes(), "b.tgz": (tmp_path / "b.tgz").read_bytes(), "outer": b"outer"}
    unpacked = unpacked_of(tmp_path, zipped(tmp_path / "a.zip", files))
    assert sorted(contents(unpacked)) == [b"inner", b"outer", b"slice"]
    assert [(member.name, member.error.code) for member in unpacked.lost] == [("c.zip", "archive.nested")]
    assert unpacked.ignored == {"lost in an archive (3 archives lie one in the other)": 1}
    assert {path.name for path in (tmp_path / "target").iterdir()} == {path.name for path in unpacked.files}


def test_nothing_but_archives_in_archives_is_an_error(tmp_path):
    zipped(tmp_path / "c.zip", {"deepest": b"x"})
    zipped(tmp_path / "b.zip", {"c.zip": (tmp_path / "c.zip").read_bytes()})
    source = zipped(tmp_path / "a.zip", {"b.zip": (tmp_path / "b.zip").read_bytes()})
    with pytest.raises(errors.NestedArchiveError, match="3 archives") as caught:
        unpacked_of(tmp_path, source)
    assert "innermost" in caught.value.remedy
    deeper = Limits(archive_depth=3)
    assert contents(unpack([source], tmp_path / "again", limits=deeper)) == [b"x"]


def test_documents_that_are_zip_archives_are_no_scans(tmp_path):
    zipped(tmp_path / "letter.docx", {"[Content_Types].xml": b"<x/>", "word/document.xml": b"<x/>"})
    source = zipped(tmp_path / "a.zip", {"letter.docx": (tmp_path / "letter.docx").read_bytes(), "IM1": b"1"})
    unpacked = unpacked_of(tmp_path, source)
    assert contents(unpacked) == [b"1"]
    assert unpacked.ignored == {"a document or a program": 2}


def spoilt(path, at, change=b"\xff\0\xff"):
    raw = bytearray(path.read_bytes())
    raw[at : at + len(change)] = change
    path.write_bytes(raw)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_member_costs_itself_alone_and_is_named(tmp_path, method):
    source = zipped(tmp_path / "a.zip", method=method)
    with zipfile.ZipFile(source) as archive:
        info = archive.getinfo("series/IM2")
    spoilt(source, info.header_offset + 30 + len(info.filename) + 1)
    unpacked = unpacked_of(tmp_path, source)
    assert contents(unpacked) == [FILES["IM1"], FILES["series/deep/IM3"]]
    assert [(member.name, member.error.code) for member in unpacked.lost] == [("series/IM2", "archive.damaged")]
    assert len(list((tmp_path / "target").iterdir())) == 2


def test_member_whose_own_header_is_damaged(tmp_path):
    source = zipped(tmp_path / "a.zip")
    with zipfile.ZipFile(source) as archive:
        info = archive.getinfo("series/IM2")
    spoilt(source, info.header_offset, b"XX")
    assert [member.name for member in unpacked_of(tmp_path, source).lost] == ["series/IM2"]


def test_member_with_another_name_before_it_is_taken(tmp_path):
    """`zipfile` would refuse it; archives of macOS and of old programs have such members."""
    source = zipped(tmp_path / "a.zip")
    spoilt(source, 30, b"im")
    assert contents(unpacked_of(tmp_path, source)) == list(FILES.values())


def test_member_packed_in_another_way_is_named(tmp_path):
    source = tmp_path / "a.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("IM1", b"1")
        archive.writestr("IM2", b"2" * 99, zipfile.ZIP_BZIP2)
    unpacked = unpacked_of(tmp_path, source)
    assert contents(unpacked) == [b"1"]
    assert unpacked.lost[0].name == "IM2"
    assert "method 12" in unpacked.lost[0].error.found


def test_archive_of_members_that_are_all_damaged_is_an_error(tmp_path):
    source = zipped(tmp_path / "a.zip", {"IM1": b"x" * 99}, zipfile.ZIP_STORED)
    spoilt(source, 40)
    with pytest.raises(errors.DamagedArchiveError, match="checksum"):
        unpacked_of(tmp_path, source)


@pytest.mark.parametrize("cut", [1, 30, 400])
def test_archive_that_was_cut_off_is_refused(tmp_path, cut):
    for name, make in MAKERS.items():
        source = make(tmp_path)
        if "tar" in name and "gz" not in name:
            raw = source.read_bytes().rstrip(b"\0")
            source.write_bytes(raw[:-cut])
        else:
            source.write_bytes(source.read_bytes()[:-cut])
        with pytest.raises(errors.DamagedArchiveError) as caught:
            unpack([source], tmp_path / f"t-{name}", limits=Limits())
        assert "again" in caught.value.remedy


def test_damage_between_members_of_a_tar_is_not_its_end(tmp_path):
    source = tarred(tmp_path / "a.tar", format=tarfile.USTAR_FORMAT)
    spoilt(source, 512 + 512 + 5)
    with tarfile.open(source) as archive:
        assert len(archive.getnames()) == 1  # what `tarfile` says, and nothing else
    with pytest.raises(errors.DamagedArchiveError, match="between two members"):
        unpacked_of(tmp_path, source)


def test_members_behind_the_end_of_a_tar_are_not_passed_over(tmp_path):
    first = tarred(tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(first + first)
    with pytest.raises(errors.DamagedArchiveError, match="follows the end"):
        unpacked_of(tmp_path, tmp_path / "a.tar")


def tar_header(name=b"IM1", size=b"00000000010\0", kind=b"0"):
    header = bytearray(512)
    header[: len(name)] = name
    header[124:136] = size
    header[156:157] = kind
    header[257:265] = b"ustar\00000"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_lengths_in_a_tar_are_not_believed(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_header(kind=b"L", size=b"77777777777\0") + bytes(1024))
    with pytest.raises(errors.DamagedArchiveError, match="takes 8,589,934,591 bytes"):
        unpacked_of(tmp_path, tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(tar_header(size=b"hello       ") + bytes(1024))
    with pytest.raises(errors.DamagedArchiveError, match="no length"):
        unpacked_of(tmp_path, tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(tar_header(size=b"\x80" + (2**40).to_bytes(11, "big")) + bytes(1024))
    with pytest.raises(errors.DamagedArchiveError, match="ends early"):
        unpacked_of(tmp_path, tmp_path / "a.tar")


def test_archives_of_strangers_that_need_a_password(tmp_path):
    source = zipped(tmp_path / "a.zip")
    raw = bytearray(source.read_bytes())
    with zipfile.ZipFile(source) as archive:
        raw[archive.start_dir + 8] |= 1
    source.write_bytes(raw)
    with pytest.raises(errors.EncryptedArchiveError, match="1 member") as caught:
        unpacked_of(tmp_path, source)
    assert "Unpack it yourself" in caught.value.remedy
    outer = zipped(tmp_path / "b.zip", {"a.zip": bytes(raw), "IM1": b"1"})
    unpacked = unpacked_of(tmp_path, outer)
    assert contents(unpacked) == [b"1"]
    assert unpacked.lost[0].error.code == "archive.encrypted"


def test_zip64(tmp_path):
    source = tmp_path / "a.zip"
    with zipfile.ZipFile(source, "w") as archive, archive.open("IM1", "w", force_zip64=True) as member:
        member.write(b"one")
    raw = source.read_bytes()
    end = raw.rindex(b"PK\5\6")
    count, length, start = struct.unpack_from("<HLL", raw, end + 10)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, length, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    tail = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    source.write_bytes(raw[:end] + record + locator + tail)
    assert contents(unpacked_of(tmp_path, source)) == [b"one"]
    source.write_bytes(raw[:end] + record + bytes(len(locator)) + tail)
    with pytest.raises(errors.TooManyFilesError, match="4,294,967,295 bytes"):
        unpacked_of(tmp_path, source)


LIMITS = {
    "files": (Limits(files=2), errors.TooManyFilesError, "more than 2 files"),
    "bytes": (Limits(expanded_bytes=2000), errors.ExpandedBytesError, "more than 2,000 bytes"),
    "seconds": (None, errors.UnpackTimeError, "more than 900 s"),
}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_each_limit_ends_the_whole(tmp_path, monkeypatch, name, kind):
    limits, error, message = LIMITS[name]
    if limits is None:
        now, clock = time.monotonic(), itertools.count(0, 1000)
        monkeypatch.setattr("lungseg.intake.budget.time.monotonic", lambda: now + next(clock))
    source = MAKERS[kind](tmp_path)
    with pytest.raises(error, match=message) as caught:
        unpacked_of(tmp_path, source, limits=limits)
    assert caught.value.remedy == "Hand in fewer files at once."


def test_limit_of_files_holds_for_folders(tmp_path):
    (tmp_path / "folder").mkdir()
    for number in range(3):
        (tmp_path / "folder" / str(number)).write_bytes(b"x")
    with pytest.raises(errors.TooManyFilesError):
        unpacked_of(tmp_path, tmp_path / "folder", limits=Limits(files=2))


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_member_that_is_too_long_is_named(tmp_path, kind):
    unpacked = unpacked_of(tmp_path, MAKERS[kind](tmp_path), limits=Limits(file_bytes=1000))
    assert contents(unpacked) == [FILES["IM1"], FILES["series/IM2"]]
    assert [(member.name, member.error.code) for member in unpacked.lost] == [
        ("series/deep/IM3", "archive.member_bytes")
    ]


def test_size_in_a_directory_is_not_believed(tmp_path):
    source = zipped(tmp_path / "a.zip", {"IM1": bytes(5_000_000), "IM2": b"2"})
    raw = source.read_bytes()
    source.write_bytes(raw.replace(struct.pack("<L", 5_000_000), struct.pack("<L", 50)))
    unpacked = unpacked_of(tmp_path, source)
    assert contents(unpacked) == [b"2"]
    assert "longer than the archive says" in unpacked.lost[0].error.found


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "gz", "zip in zip"])
def test_bomb_is_recognised_while_it_is_unpacked_in_little_memory(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(budgets, "FREE_BYTES", 2_000_000)
    bomb = bytes(60_000_000)
    if kind == "gz":
        source = tmp_path / "a.gz"
        source.write_bytes(gzip.compress(bomb, 1))
    elif kind == "tar.gz":
        source = tarred(tmp_path / "a.tgz", {"IM1": bomb}, mode="w:gz")
    else:
        source = zipped(tmp_path / "a.zip", {"IM1": bomb})
    if kind == "zip in zip":
        source = zipped(tmp_path / "b.zip", {"a.zip": source.read_bytes()})
    del bomb
    tracemalloc.start()
    with pytest.raises(errors.ExpansionError, match="no scan does"):
        unpacked_of(tmp_path, source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 1024**2
    assert sum(path.stat().st_size for path in (tmp_path / "target").rglob("*")) < 16_000_000


def test_reasons_of_an_archive_that_gives_each_member_its_own_are_few(tmp_path):
    raw = bytearray(zipped(tmp_path / "a.zip", {f"IM{number}": b"x" for number in range(100)}).read_bytes())
    for number, entry in enumerate(re.finditer(b"PK\x01\x02", bytes(raw))):
        if number:
            raw[entry.start() + 10 : entry.start() + 12] = (1000 + number).to_bytes(2, "little")
    (tmp_path / "a.zip").write_bytes(raw)
    unpacked = unpacked_of(tmp_path, tmp_path / "a.zip")
    assert (len(unpacked.lost), len(unpacked.ignored), sum(unpacked.ignored.values())) == (99, 21, 99)
    with pytest.raises(errors.NoSeriesError) as caught:
        contents_of(unpacked.names, limits=Limits(), ignored=unpacked.ignored)
    assert len(str(caught.value)) < 3000
    (finding,) = _of_lost([member.error.found for member in unpacked.lost])
    assert "And 94 more reasons." in finding.text
    assert len(finding.text) < 1000


@pytest.mark.parametrize("count", [2, 50])
def test_members_that_share_their_bytes_unpack_once_or_are_a_bomb(tmp_path, count):
    raw = zipped(tmp_path / "one.zip", {"x": bytes(100_000)}).read_bytes()
    start, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    directory = raw[start:end] * count
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
    (tmp_path / "a.zip").write_bytes(raw[:start] + directory + tail)
    if count == 50:
        with pytest.raises(errors.DamagedArchiveError, match="49 members of the zip archive share"):
            unpacked_of(tmp_path, tmp_path / "a.zip")
        return
    unpacked = unpacked_of(tmp_path, tmp_path / "a.zip")
    assert contents(unpacked) == [bytes(100_000)]
    (lost,) = unpacked.lost
    assert "shares its bytes" in lost.error.found


def test_endless_fields_before_a_member_do_not_fill_the_memory(tmp_path):
    record = b"".join(b"13 %07d=x\n" % number for number in range(70_000))
    header = tar_header(size=b"%011o\0" % len(record), kind=b"x")
    (tmp_path / "a.tar").write_bytes((header + record + bytes(-len(record) % 512)) * 3)
    with pytest.raises(errors.DamagedArchiveError, match="name in the tar archive takes"):
        unpacked_of(tmp_path, tmp_path / "a.tar")


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", [".", "./.", "/", "..", "a/..", "\u202e", "a\\b", "C:\\x"])
def test_header_under_a_name_that_is_none(tmp_path, make, name):
    text = MHD.format("scan.raw").encode()
    source = make(tmp_path / "a", [(name, text), ("scan.raw", VOXELS.tobytes(order="F"))])
    if make is zipped and name == "/":
        assert len(unpacked_of(tmp_path, source).files) == 1  # a folder
        return
    unpacked = unpacked_of(tmp_path, source)
    assert unpacked.lost == ()
    assert text in [path.read_bytes() for path in unpacked.files] or len(unpacked.files) == 1


def test_endless_members_without_content_are_counted_too(tmp_path, monkeypatch):
    monkeypatch.setattr(budgets, "FREE_BYTES", 1_000_000)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(tar_header(size=b"00000000000\0", kind=b"5") * 20_000))
    with pytest.raises(errors.ExpansionError):
        unpacked_of(tmp_path, tmp_path / "a.tgz", limits=Limits(expansion=2))


def test_directory_of_very_many_members_is_refused_before_it_is_read(tmp_path):
    source = zipped(tmp_path / "a.zip", {f"IM{n}": b"" for n in range(300)})
    with pytest.raises(errors.TooManyFilesError, match="directory"):
        unpacked_of(tmp_path, source, limits=Limits(files=10))


@pytest.mark.parametrize("named_at", ["where it is", "elsewhere"])
def test_directory_whose_length_stands_in_64_bits_alone_is_refused_too(tmp_path, named_at):
    source = zipped(tmp_path / "a.zip", {f"IM{n}": b"" for n in range(300)})
    raw = source.read_bytes()
    start, end = raw.find(b"PK\x01\x02"), raw.rfind(b"PK\x05\x06")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 300, 300, end - start, start)
    place = end if named_at == "where it is" else start
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, place, 1)
    few = raw[end : end + 12] + struct.pack("<L", 46) + raw[end + 16 :]
    source.write_bytes(raw[:end] + record + locator + few)
    with pytest.raises(errors.TooManyFilesError, match="directory"):
        unpacked_of(tmp_path, source, limits=Limits(files=10))


def test_damaged_gzip_of_a_slice(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(os.urandom(5_000_000))[:-2_000_000])
    with pytest.raises(errors.DamagedArchiveError, match="gzip"):
        unpacked_of(tmp_path, tmp_path / "a.gz")
    (tmp_path / "a.gz").write_bytes(b"\x1f\x8bnothing")
    assert not is_archive(tmp_path / "a.gz")


def test_other_archives_stay_for_whoever_names_them(tmp_path):
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(99))
    (tmp_path / "a.bz2").write_bytes(bz2.compress(b"x"))
    assert not is_archive(tmp_path / "a.7z")
    assert len(unpacked_of(tmp_path, tmp_path / "a.7z", tmp_path / "a.bz2").files) == 2


def test_progress_is_in_bytes_of_what_was_handed_in(tmp_path):
    (tmp_path / "plain").write_bytes(os.urandom(1000))
    source = zipped(tmp_path / "a.zip", {"IM1": os.urandom(3_000_000), "IM2": os.urandom(10)})
    seen = []
    unpacked_of(tmp_path, tmp_path / "plain", source, on_progress=lambda done, total: seen.append((done, total)))
    total = 1000 + source.stat().st_size
    assert seen[0] == (1000, total)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) > 4


def test_full_disk_is_an_error_of_ours(tmp_path, monkeypatch):
    (tmp_path / "target").write_bytes(b"")
    with pytest.raises(errors.StorageError):
        unpacked_of(tmp_path, MAKERS["zip"](tmp_path))


SHAPE = (7, 6, 5)
VOXELS = np.asfortranarray((np.arange(210).reshape(SHAPE) * 5 - 1000).astype("<i2"))
MHD = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = -10 20 -300
ElementSpacing = 0.75 1.25 2.5
DimSize = 7 6 5
ElementType = MET_SHORT
ElementDataFile = {}
"""


def scan_pair(folder, ending, *, packed=False):
    """Write a scan of two files by ITK."""
    folder.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(VOXELS.transpose(2, 1, 0)))
    image.SetSpacing((0.75, 1.25, 2.5))
    image.SetOrigin((-10, 20, -300))
    sitk.WriteImage(image, str(folder / f"scan{ending}"), packed)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("ending", "packed"), [(".mhd", False), (".mhd", True), (".nhdr", False), (".nhdr", True), (".hdr", False)]
)
def test_header_finds_its_voxels_after_unpacking(tmp_path, ending, packed):
    files = scan_pair(tmp_path / "pair", ending, packed=packed)
    assert len(files) == 2
    inner = {f"Müller/{folder}/{name}": raw for folder in "ab" for name, raw in files.items()}
    unpacked = unpacked_of(tmp_path, zipped(tmp_path / "a.zip", {**inner, "IM1": b"1"}))
    assert len(unpacked.files) == 3
    for header in unpacked.files[:-1] if unpacked.files[-1].read_bytes() == b"1" else unpacked.files[1:]:
        np.testing.assert_array_equal(formats.read_volume(header).hu[::-1, ::-1], VOXELS)
    names = {path.name for path in (tmp_path / "target").rglob("*") if path.is_file()}
    assert not any("ller" in name for name in names)
    assert len(names) == 3


def test_gzipped_pair_and_names_of_an_upload(tmp_path):
    files = scan_pair(tmp_path / "pair", ".hdr")
    upload = tmp_path / "upload"
    upload.mkdir()
    sources = {upload / f"{n:06}": f"{name}.gz" for n, name in enumerate(files)}
    for path, name in sources.items():
        path.write_bytes(gzip.compress(files[name.removesuffix(".gz")]))
    unpacked = unpacked_of(tmp_path, *sources, names=sources)
    assert len(unpacked.files) == 1
    np.testing.assert_array_equal(formats.read_volume(unpacked.files[0]).hu[::-1, ::-1], VOXELS)


def test_header_that_names_a_file_elsewhere_gets_none(tmp_path):
    secret = tmp_path / "secret.raw"
    secret.write_bytes(VOXELS.tobytes(order="F"))
    for number, name in enumerate((str(secret), "../secret.raw", "other.raw", "scan.mhd", "..", "")):
        source = zipped(tmp_path / "a.zip", {"a/scan.mhd": MHD.format(name).encode(), "secret.raw": b"x"})
        unpacked = unpack([source], tmp_path / str(number), limits=Limits())
        assert len(unpacked.files) == 2
        with pytest.raises(errors.ScanError):
            formats.read_volume(unpacked.files[0])
