"""Scans of two files among many: a header, and the voxels in a file that its name leads to.

What was unpacked has names of ours, under which no header would find its voxels. So the two get a folder of their own
and fixed names there, and a header that names its voxels is written anew with that name.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lungseg.errors import ScanError
from lungseg.files.atomic import PRIVATE_FOLDER
from lungseg.files.unpacking import open_content
from lungseg.scans.companions import first_block
from lungseg.scans.nifti import voxel_names
from lungseg.scans.nifti_header import is_pair
from lungseg.scans.text_header import is_metaimage, is_nrrd, parse_text, read_text, with_data_name

VOXELS = "scan.raw"
HEADERS = ("scan.hdr", "scan.nhdr", "scan.mhd")
"""Names that headers get."""


@dataclass(frozen=True, slots=True)
class TwoFileScan:
    """A header with its voxels.

    Attributes:
        header: file of the header.
        voxels: file of the voxels.
        name: that the header gets.
        voxels_name: that the voxels get.
        text: the header with that name in it; None where a header names no file.
    """

    header: Path
    voxels: Path
    name: str
    voxels_name: str
    text: bytes | None

    def write(self, folder: Path) -> Path:
        """Have both files in a folder, which is made; returns the header."""
        folder.mkdir(mode=PRIVATE_FOLDER)
        header = folder / self.name
        link_or_copy(self.voxels, folder / self.voxels_name)
        if self.text is None:
            link_or_copy(self.header, header)
        else:
            header.write_bytes(self.text)
        return header


def pairs_among(files: Sequence[tuple[Path, str]]) -> Mapping[Path, TwoFileScan]:
    """Return the headers among files whose voxels are there, too.

    Args:
        files: each with the name under which it was handed in, with its folders. Voxels lie in their header's folder.
    """
    places = {PurePosixPath(name): path for path, name in files}
    pairs = {}
    for path, name in files:
        for pair in _pair_of(path, PurePosixPath(name), places):
            pairs[path] = pair
    return pairs


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; copy it where that can't be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _pair_of(path: Path, name: PurePosixPath, places: Mapping[PurePosixPath, Path]) -> Iterator[TwoFileScan]:
    if not name.name:  # "." in an archive: nothing lies beside it
        return
    try:
        block = first_block(path)
        if is_pair(block):
            names, text, own, others = voxel_names(name.name), None, "scan.hdr", "scan.img"
        elif is_nrrd(block) or is_metaimage(block):
            with open_content(path, is_plain=True) as content:
                header, _ = read_text(content)
            names, own, others = [parse_text(header).data_name], "scan.nhdr" if is_nrrd(block) else "scan.mhd", VOXELS
            text = with_data_name(header, VOXELS)
        else:
            return
    except ScanError:
        return  # whoever reads the file says what is wrong with it
    for voxels in (places.get(name.with_name(other)) for other in names if _can_be_name(other)):
        if voxels and voxels != path:
            yield TwoFileScan(path, voxels, own, others, text)
            return


def _can_be_name(name: str) -> bool:
    return name not in {"", ".", ".."} and not {"/", "\\", "\0"} & set(name)
