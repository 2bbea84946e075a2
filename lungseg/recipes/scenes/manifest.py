"""The manifest of a corpus: its folders with their licences, patients in several of them, unmarked tumour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lungseg.decoding import Natural, decode_value, parse_toml
from lungseg.errors import DataSetError
from lungseg.files.atomic import is_file, is_name

FILE = "corpus.toml"
SHIPPED = Path(__file__).with_name(FILE)


@dataclass(frozen=True, slots=True)
class SourceFolder:
    """A folder of a corpus: its name, the source of its data, and their licence."""

    folder: str
    attribution: str
    licence: str


@dataclass(frozen=True, slots=True)
class CorpusManifest:
    """The facts of a corpus that its files do not tell.

    Attributes:
        scans: folder of whole scans, as in the Medical Segmentation Decathlon.
        crops: folder of consecutive slices of nodules.
        nodules: folder of nodules in 3-D.
        scan_patients: by scan, its patient where the other folders have that one, too; otherwise the scan's name.
        unmarked_slices: by scan, first and last slice in which tumour is visible that nobody has marked.
    """

    scans: SourceFolder
    crops: SourceFolder
    nodules: SourceFolder
    scan_patients: Mapping[str, str]
    unmarked_slices: Mapping[str, tuple[Natural, Natural]]

    def __post_init__(self) -> None:
        """Refuse names that lead out of the data folder; raises DataSetError."""
        for source in self.sources:
            if not is_name(source.folder):
                raise DataSetError(f"{source.folder!r} is no name of a folder.", f"Correct it in {FILE}.")

    @property
    def sources(self) -> tuple[SourceFolder, ...]:
        """All folders."""
        return self.scans, self.crops, self.nodules

    def patient_of(self, scan: str) -> str:
        """Return the patient of a whole scan."""
        return self.scan_patients.get(scan, scan)


def read_corpus_manifest(data: Path) -> CorpusManifest:
    """Read the manifest of a data folder, or the one of this recipe where it has none.

    Raises:
        DataSetError: it can't be read.
    """
    path = data / FILE if is_file(data / FILE) else SHIPPED

    def damaged(reason: str) -> DataSetError:
        return DataSetError(f"{path} can't be used ({reason}).", "Correct it, or remove it to use that of the recipe.")

    try:
        values = parse_toml(path.read_bytes(), damaged)
    except OSError as error:
        raise damaged(error.strerror or str(error)) from error
    return decode_value(CorpusManifest, values, damaged)
