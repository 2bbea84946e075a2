"""The keys of an installation's files; their names are ids, never a user's."""

from __future__ import annotations

SCANS = "scans"
ORIGINALS = "originals"
INTAKES = "intakes"
LISTENER = "listener"
OUTBOX = "outbox"
IDENTITIES = "identities"
MASKS = "masks"
PROBABILITIES = "probabilities"
DERIVED = "derived"
THUMBNAILS = "thumbnails"
INCOMING = "incoming"
RESUMABLE = "incoming/resumable"
TRASH = "trash"
PRESETS = "presets"
UNASSIGNED = "unassigned"
HOME_ID = "home.id"
PROMOTIONS = "promotions.json"
MANIFEST_END = ".json"
WITH_DOUBTFUL = ".all"
"""Ending of the id of a derived mask with its doubtful lesions."""


def scan(case_id: str, suffix: str) -> str:
    """Return the key of a scan; the suffix is that of its format, such as `.nii.gz`."""
    return f"{SCANS}/{case_id}{suffix}"


def original(case_id: str) -> str:
    """Return the key of the zip of the files that a case's scan was made of."""
    return f"{ORIGINALS}/{case_id}.zip"


def identity(case_id: str) -> str:
    """Return the key of what leads from a case back to its patient; for its owner alone."""
    return f"{IDENTITIES}/{case_id}.json"


def intake(intake_id: str) -> str:
    """Return the key of the folder of something handed in, until it has become cases."""
    return f"{INTAKES}/{intake_id}"


def delivery(case_id: str, kind: str, mark: str) -> str:
    """Return the key of what has become of a result that is sent to a PACS; `mark` stands for the PACS."""
    return f"{OUTBOX}/{case_id}.{kind}.{mark}.json"


def export(mask_id: str, kind: str, suffix: str) -> str:
    """Return the key of an export of a mask; `kind` and `suffix` are those of its format."""
    return f"{DERIVED}/{mask_id}.{kind}{suffix}"


def mask(mask_id: str) -> str:
    """Return the key of a mask."""
    return f"{MASKS}/{mask_id}.nii.gz"


def incoming_mask(mask_id: str) -> str:
    """Return the key of a mask until a record owns it."""
    return f"{INCOMING}/{mask_id}.nii.gz"


def probability(mask_id: str) -> str:
    """Return the key of the probability map that a mask was made of."""
    return f"{PROBABILITIES}/{mask_id}.npz"


def derived(mask_id: str, level: int, *, with_doubtful: bool = False) -> str:
    """Return the key of a mask derived at a threshold, `level` in 255ths."""
    return f"{DERIVED}/{mask_id}.{level}{WITH_DOUBTFUL if with_doubtful else ''}.nii.gz"


def derived_facts(mask_id: str, level: int) -> str:
    """Return the key of the lesions and volumes of a derived mask."""
    return f"{DERIVED}/{mask_id}.{level}.json"


def video(mask: str, run_id: str) -> str:
    """Return the key of the video that a run makes of the mask with this key."""
    return f"{DERIVED}/{id_of(mask)}.{run_id}.mp4"


def preset(file_name: str) -> str:
    """Return the key of a user's preset file."""
    return f"{PRESETS}/{file_name}"


def thumbnail(case_id: str) -> str:
    """Return the key of the thumbnail of a case, which is made when the case is segmented."""
    return f"{THUMBNAILS}/{case_id}.png"


def case_manifest(case_id: str) -> str:
    """Return the key of the manifest of a case."""
    return f"{SCANS}/{case_id}{MANIFEST_END}"


def mask_manifest(mask_id: str) -> str:
    """Return the key of the manifest of a mask."""
    return f"{MASKS}/{mask_id}{MANIFEST_END}"


def id_of(key: str) -> str:
    """Return the id of the case or mask that a key begins with."""
    return key.rpartition("/")[2].partition(".")[0]
