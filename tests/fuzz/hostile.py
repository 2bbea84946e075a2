"""Archives that only somebody makes who wants to do harm: names, links, overlaps, lengths that lie, endless headers."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib

NAMES = (
    "", ".", "..", "/", "./.", "../../../x", "/etc/passwd", "a/../../x", "..\\..\\x", "C:\\x", "a\\b", "\\\\host\\x",
    "a\0b", "\u202egpj.exe", "CON", "x" * 300, "/".join("d" * 400), "a//b", " ", "-rf", "a\nb", "~/x", "%2e%2e%2fx",
    "IM000001", "im000001", "000001", "scan.raw", "\ud7ff", "\U0001f4a3",
)  # fmt: skip
"""Of members; the last but few collide with others, or with names of ours."""
NHDR = "NRRD0004\ntype: short\ndimension: 3\nsizes: 20 16 7\nspace: RAS\nspace directions: (1,0,0) (0,1,0) (0,0,2)\n"
NHDR += "space origin: (0,0,0)\nencoding: {}\nendian: little\ndata file: {}\n\n"
MHD = "ObjectType = Image\nNDims = 3\nDimSize = 20 16 7\nElementType = MET_SHORT\nElementSpacing = 1 1 2\n"
MHD += "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nElementDataFile = {}\n"
PLACES = (
    "/dev/zero", "/etc/passwd", "../000001", "000001", "000002", "../../x", "http://127.0.0.1:1/x", "file:///etc/passwd",
    "LIST", "LIST 2", "scan%03d.raw 1 9 1", "scan.raw", ".", "..", "", "a/scan.raw", "..\\scan.raw", "IM000001", "|id",
    "1" * 5000,
)  # fmt: skip
"""That a header names as those of its voxels."""
LENGTHS = (0, 1, 511, 2**31, 2**32 - 1, 2**33, 2**62, 2**64 - 1)
DEEP, MANY = 40, 30_000
BOMB_BYTES = 300 * 1024**2


def hostile_archive(raw, rng, _others):
    """Make an archive of the members of a good zip, in one of many ways that do harm; no byte of it is by chance."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    return WAYS[rng.integers(len(WAYS))](files, rng)


def _zip_of(members, method=zipfile.ZIP_DEFLATED):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for info, content in members:
            archive.writestr(info, content)
    return target.getvalue()


def _tar_of(members, kind=tarfile.PAX_FORMAT):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=kind) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if content else None)
    return target.getvalue()


def _name(rng):
    return NAMES[rng.integers(len(NAMES))]


def _place(rng):
    return PLACES[rng.integers(len(PLACES))]


def _names_in_zip(files, rng):
    return _zip_of([(zipfile.ZipInfo(_name(rng) or "x"), content) for content in files.values()])


def _names_in_tar(files, rng):
    kind = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)[rng.integers(2)]
    return _tar_of([(tarfile.TarInfo(_name(rng)), content) for content in files.values()], kind)


def _headers(files, rng):
    """Headers of scans that name their voxels where none may be, under odd names of their own."""
    members = list(files.items())[: int(rng.integers(4))]
    for _ in range(rng.integers(1, 5)):
        text = MHD.format(_place(rng)) if rng.random() < 0.5 else NHDR.format("raw", _place(rng))
        members.append((_name(rng) or "scan.mhd", text.encode()))
    members.append(("scan.raw", bytes(20 * 16 * 7 * 2)))
    if rng.random() < 0.5:
        return _zip_of([(zipfile.ZipInfo(name), content) for name, content in members])
    return _tar_of([(tarfile.TarInfo(name), content) for name, content in members])


def _links_in_zip(files, rng):
    members = []
    for content in files.values():
        info = zipfile.ZipInfo(_name(rng) or "x")
        mode = (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFSOCK)[rng.integers(6)]
        info.external_attr = (mode | 0o777) << 16
        members.append((info, _place(rng).encode() if rng.random() < 0.5 else content))
    return _zip_of([*members, *files.items()] if rng.random() < 0.5 else members)


def _links_in_tar(files, rng):
    members = []
    for name, content in files.items():
        info = tarfile.TarInfo(_name(rng) or name)
        info.type = bytes([rng.choice(list(b"0123456789SVMNADgxLK\0z"))])
        info.linkname = _place(rng)[:90]
        members.append((info, content))
    return _tar_of(members, tarfile.GNU_FORMAT)


def _overlapping(files, rng):
    """Many entries of a directory that share one member: a bomb without a nested archive."""
    count = int(rng.choice([50, 2000, MANY]))
    content = next(iter(files.values())) if rng.random() < 0.5 else bytes(10**7)
    whole = _zip_of([(zipfile.ZipInfo("x"), content)])
    start = whole.index(b"PK\x01\x02")
    end = whole.index(b"PK\x05\x06")
    entries = whole[start:end] * count
    counts = (count % 65536, count % 65536)
    return whole[:start] + entries + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, *counts, len(entries), start, 0)


def _sizes_that_lie(files, rng):
    """A zip in 64 bits whose directory states other lengths and places than there are."""
    changed = bytearray(_zip_of(files.items(), int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))))
    places = [at for at in range(len(changed) - 46) if changed[at : at + 4] == b"PK\x01\x02"]
    at = places[rng.integers(len(places))]
    name_end = at + 46 + int.from_bytes(changed[at + 28 : at + 30], "little")
    numbers = [int(LENGTHS[rng.integers(len(LENGTHS))]) for _ in range(3)]
    extra = struct.pack("<HH3Q", 1, int(rng.choice([24, 8, 0, 65535])), *(number % 2**64 for number in numbers))
    changed[at + 20 : at + 28] = b"\xff" * 8
    changed[at + 42 : at + 46] = b"\xff" * 4
    changed[at + 30 : at + 32] = len(extra).to_bytes(2, "little")
    changed[name_end:name_end] = extra
    end = changed.rindex(b"PK\x05\x06")
    length = int.from_bytes(changed[end + 12 : end + 16], "little") + len(extra)
    changed[end + 12 : end + 16] = length.to_bytes(4, "little")
    return bytes(changed)


def _flags(files, rng):
    """Members that are encrypted, packed in ways of which nobody has heard, or whose checksum is wrong."""
    changed = bytearray(_zip_of(files.items()))
    for mark, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        for at in [at for at in range(len(changed) - 46) if changed[at : at + 4] == mark]:
            if rng.random() < 0.3:
                which = int(rng.integers(3))
                values = ([1, 8, 2048, 65535], [0, 8, 9, 12, 14, 93, 95, 99, 65535], [0, 65535])[which]
                start = at + place + (0, 2, 8)[which]
                changed[start : start + 2] = int(rng.choice(values)).to_bytes(2, "little")
    return bytes(changed)


def _nested(files, rng):
    content = _zip_of(files.items())
    for depth in range(int(rng.integers(1, DEEP))):
        way = rng.integers(3)
        if way == 0:
            content = _zip_of([("a.zip", content)], zipfile.ZIP_STORED)
        elif way == 1:
            content = _tar_of([(tarfile.TarInfo(f"{depth}.tar"), content)])
        else:
            content = gzip.compress(content, 1)
    return content


def _endless_headers(files, rng):
    """Headers of tar that claim gigabytes, or follow each other without a member."""
    tar = _tar_of([(tarfile.TarInfo(name), content) for name, content in files.items()], tarfile.GNU_FORMAT)
    kind = bytes([rng.choice(list(b"xgLKSV5"))])
    length = int(LENGTHS[rng.integers(len(LENGTHS))]) if rng.random() < 0.5 else 0
    field = b"%011o\0" % length if length < 8**11 else b"\x80\0\0\0" + length.to_bytes(8, "big")
    header = bytearray(512)
    header[0:1], header[100:108], header[124:136], header[156:157] = b"x", b"0000644\0", field, kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content = bytes(header) * int(rng.choice([1, 3, MANY])) + tar
    return gzip.compress(content, 1) if rng.random() < 0.5 else content


def _fields_of_pax(files, rng):
    members = []
    for name, content in files.items():
        info = tarfile.TarInfo(name)
        fields = ("path", "size", "linkpath", "GNU.sparse.size", "GNU.sparse.map", "hdrcharset", "uid", "x" * 2000)
        values = (_name(rng).replace("\0", ""), "-1", "1e9", "9" * 19, "0", "9" * 400, "1,2", "x" * 900_000)
        key, value = fields[rng.integers(len(fields))], values[rng.integers(len(values))]
        info.pax_headers = {key: value}
        members.append((info, content))
    return _tar_of(members[: int(rng.integers(1, 4))])


def _members_of_gzip(files, rng):
    """Gzip of very many members, that hold next to nothing or a tar between them."""
    small = gzip.compress(b"" if rng.random() < 0.5 else b"\0")
    whole = gzip.compress(_tar_of([(tarfile.TarInfo(name), content) for name, content in files.items()]), 1)
    return small * int(rng.choice([1, 100, 10**5])) + (whole if rng.random() < 0.7 else whole * 2)


def _bomb(files, rng):
    """Zeros that pack to a thousandth: alone, among slices, or as a deflated slice."""
    size = int(rng.choice([10**7, BOMB_BYTES]))
    packer = zlib.compressobj(9, wbits=31)
    packed = b"".join(packer.compress(bytes(10**6)) for _ in range(size // 10**6)) + packer.flush()
    if rng.random() < 0.5:
        return packed
    return _zip_of([("bomb.gz", packed), *files.items()], zipfile.ZIP_STORED)


def _joined(files, rng):
    """Several archives in one file, with or without noise before, between and behind."""
    one = _zip_of(files.items())
    two = _tar_of([(tarfile.TarInfo(name), content) for name, content in files.items()])
    parts = [(one, two)[rng.integers(2)] if rng.random() < 0.8 else rng.bytes(700) for _ in range(rng.integers(2, 5))]
    return b"".join(parts)


def _directories_twice(files, rng):
    """A zip whose comment holds the end of another directory."""
    one = _zip_of(files.items())
    target = io.BytesIO(one)
    with zipfile.ZipFile(target, "a") as archive:
        noise = rng.bytes(int(rng.integers(30)))
        archive.comment = one[one.rindex(b"PK\x05\x06") :] * int(rng.integers(1, 900)) + noise
    return target.getvalue()


WAYS = (
    _names_in_zip, _names_in_tar, _headers, _headers, _links_in_zip, _links_in_tar, _overlapping, _sizes_that_lie,
    _flags, _nested, _endless_headers, _fields_of_pax, _members_of_gzip, _bomb, _joined, _directories_twice,
)  # fmt: skip
