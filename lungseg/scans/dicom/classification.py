"""What a series is (a CT of the chest or of something else, a localiser, no CT), and why it can't be taken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.intakes import SeriesKind
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.order import heights_mm, normal_of
from lungseg.scans.dicom.rescaling import HOUNSFIELD, UNSPECIFIED

CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
}
"""CT, Enhanced CT and Legacy Converted Enhanced CT Image Storage."""
OBJECTS = {
    "1.2.840.10008.5.1.4.1.1.7": "a secondary capture: a picture of a screen, a report or a 3-D view",
    "1.2.840.10008.5.1.4.1.1.88": "a structured report",
    "1.2.840.10008.5.1.4.1.1.104": "a document",
    "1.2.840.10008.5.1.4.1.1.11": "a presentation state",
    "1.2.840.10008.5.1.4.1.1.66": "raw data or a registration",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.481.3": "a structure set of radiotherapy (RTSTRUCT)",
    "1.2.840.10008.5.1.4.1.1.481": "an object of radiotherapy",
}
"""SOP classes, and roots of them, that hold no slices of a scan."""
MODALITIES = {
    "PT": "a PET",
    "NM": "nuclear medicine",
    "MR": "an MR",
    "US": "an ultrasound",
    "CR": "an X-ray",
    "DX": "an X-ray",
    "MG": "a mammogram",
    "XA": "an angiogram",
    "RF": "a fluoroscopy",
    "RTSTRUCT": "a structure set of radiotherapy (RTSTRUCT)",
    "RTDOSE": "a dose of radiotherapy",
    "SEG": "a segmentation",
    "SR": "a structured report",
    "OT": "a picture of another kind",
}
SCREEN = {"SCREEN SAVE", "SCREENSHOT", "DOSE_INFO", "PATIENT PROTOCOL", "PROTOCOL"}
PROJECTIONS = {"MIP", "MAXIP", "MINIP", "MAX_IP", "MIN_IP", "VRT", "VOLUME_RENDERED", "PROJECTION IMAGE", "SSD", "CPR",
               "RENDERED", "PERFUSION", "SUBTRACTION"}  # fmt: skip
APART = {"LOCALIZER"} | SCREEN | PROJECTIONS
"""Values of the image type that no slice of a stack has unless all have them."""
MATERIALS = re.compile(r"IODINE|_EFF|EFF[._ ]?Z|ZEFF|MATERIAL|DENSITY|WATER|CALCIUM|URIC|FAT_|ELECTRON|LUNG_?PBV|PBV")
"""Dual energy: values that are no HU."""
MIXED = re.compile(r"MONO_?E|MONOENERGETIC|VMI|VNC|VIRTUAL")
"""Dual energy: HU, but computed."""
MONOCHROME = "MONOCHROME"
CHEST = re.compile(
    r"chest|thora|torax|lung|pulm|poumon|polmon|brust|hrct|ctpa|\b[nc]*[ct]ap\b|whole.?body|\bwb\b|trunk|ganzk|胸|肺",
    re.IGNORECASE,
)
ELSEWHERE = re.compile(
    r"\w*(?:head|brain|skull|sinus|orbit|neck|abdom|pelvi|liver|renal|kidney|spine|knee|\bhip|foot|ankle|wrist|hand|"
    r"elbow|shoulder|extremit|kopf|schädel|becken|dental|jaw)\w*", re.IGNORECASE
)  # fmt: skip
CHEST_MM, BODY_MM = 180.0, 260.0
"""Scans that are as long, with a field of view as wide, show a trunk where no word tells."""
AXIAL_DEGREES = 30.0
"""Slices whose normal is nearer to the patient's length than that are axial."""
FEWEST_SLICES = 4
"""Fewer slices that are not axial are a localiser."""
AXIAL = "Take the axial series of the same examination."


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a series is.

    Attributes:
        kind: of it.
        note: what else a reader should know.
        refusal: why it can't be taken in, and what to do; empty where it can.
        findings: what a reader of its result should know.
    """

    kind: SeriesKind
    note: str = ""
    refusal: str = ""
    findings: tuple[ScanFinding, ...] = ()


def verdict_on(instances: Sequence[Instance]) -> Verdict:
    """Tell what a series is from its headers, all of one group."""
    first = instances[0]
    words = {word for instance in instances for word in instance.image_type}
    if what := _object(first, words):
        return Verdict(SeriesKind.NOT_CT, refusal=f"It is {what}, not a CT. {AXIAL}")
    if first.samples_per_pixel != 1 or not (first.photometric or MONOCHROME).startswith(MONOCHROME):
        return Verdict(SeriesKind.DERIVED, refusal=f"Its pictures are in colour, so not measurements. {AXIAL}")
    if "LOCALIZER" in words or (not is_axial(instances) and len(instances) < FEWEST_SLICES):
        return Verdict(
            SeriesKind.LOCALISER, refusal=f"It is a localiser: it plans the scan and shows no slices. {AXIAL}"
        )
    if refusal := _projection(instances, words) or _values(first, words):
        return Verdict(SeriesKind.DERIVED, refusal=refusal)
    return _usable(instances, words)


def is_axial(instances: Sequence[Instance]) -> bool:
    """Tell whether slices lie across the patient; True where they don't say how they lie."""
    normal = normal_of(instances)
    return normal is None or abs(float(normal[2])) >= np.cos(np.radians(AXIAL_DEGREES))


def _object(first: Instance, words: set[str]) -> str:
    """Name what is no CT; empty for a CT."""
    root = max((root for root in OBJECTS if f"{first.sop_class_uid}.".startswith(f"{root}.")), key=len, default="")
    if root:
        return OBJECTS[root]
    if words & SCREEN:
        return "a picture of a screen or a dose report"
    if first.sop_class_uid in CT_CLASSES and first.modality in {"CT", ""}:
        return ""
    if first.modality == "CT" and not first.sop_class_uid:
        return ""
    return MODALITIES.get(first.modality, f"an object of another kind ({first.sop_class_uid or first.modality})")


def _projection(instances: Sequence[Instance], words: set[str]) -> str:
    """Say why slices are no axial cuts; empty where they are."""
    if projection := sorted(words & PROJECTIONS):
        return f"Its pictures are computed from many slices ({projection[0]}). {AXIAL}"
    if not is_axial(instances):
        normal = normal_of(instances)
        side = 0 if normal is None else int(np.argmax(np.abs(normal)))
        plane = ("sagittal", "coronal", "oblique")[side]
        return f"Its slices are {plane}. {AXIAL}"
    return ""


def _values(first: Instance, words: set[str]) -> str:
    """Say why pixel values are no HU; empty where nothing speaks against it."""
    rescale_type = first.rescale_type.upper()
    material = next((word for word in sorted(words) if MATERIALS.search(word)), "")
    if rescale_type not in {HOUNSFIELD, *UNSPECIFIED} or material:
        unit = first.rescale_type if rescale_type not in {HOUNSFIELD, *UNSPECIFIED} else material
        return (
            f"Its values are not Hounsfield units but {unit} (a map computed from two energies). "
            "Take the series of one energy, or the mixed one, of the same examination."
        )
    return ""


def _usable(instances: Sequence[Instance], words: set[str]) -> Verdict:
    first, kind = instances[0], _kind(instances)
    region = ELSEWHERE.search(_texts_on_body(first)) if kind is SeriesKind.CT else None
    notes = [f"The files say {region[0]!r}, not chest."] if region else []
    if is_secondary(first):
        notes.append("Computed from other slices.")
        kind = SeriesKind.DERIVED
    if any(instance.is_burned_in for instance in instances):
        notes.append("Writing is burned into the pixels.")
    findings = tuple(
        ScanFinding(f"dicom.{code}", severity, text, remedy)
        for code, severity, text, remedy in _doubts(instances, words)
    )
    return Verdict(kind, " ".join(notes), findings=findings)


def _doubts(instances: Sequence[Instance], words: set[str]) -> Iterator[tuple[str, ScanSeverity, str, str]]:
    """Yield code, severity, text and remedy of what is uncertain of pixel values."""
    first = instances[0]
    if mixed := next((word for word in sorted(words) if MIXED.search(word)), ""):
        text = f"The values were computed from two energies ({mixed}): they differ from those of a plain scan."
        yield "dual_energy", ScanSeverity.WARNING, text, "Use the mixed series where there is one."
    if first.rescale_type.upper() == "US":
        text = "The files leave open what the values are (rescale type US); they were read as Hounsfield units."
        yield "rescale_type", ScanSeverity.WARNING, text, "Check that air is at -1000 HU."
    if any(instance.is_burned_in for instance in instances):
        text = "The files say that writing is burned into the pixels: it hides tissue, and may name the patient."
        yield "burned_in", ScanSeverity.WARNING, text, "Export the series again without annotations."
    if is_secondary(first):
        text = "The slices were computed from other slices, so that fine structures may be blurred."
        yield "secondary", ScanSeverity.WARNING, text, "Use the original where there is one."
    elif is_derived(first):
        text = "The files call the slices derived: they were processed after they had been reconstructed."
        yield "derived", ScanSeverity.NOTE, text, ""


def telling_words(instance: Instance) -> tuple[str, ...]:
    """Return the words of the image type that tell pictures apart which can make no stack together.

    The first two values always do: original or derived, primary or secondary. Of the others scanners change some within
    a volume; those that name a localiser, a projection, a reformat or an image of other energies count.
    """
    words = instance.image_type
    others = {
        word for word in words[2:] if word in APART or "MPR" in word or MATERIALS.search(word) or MIXED.search(word)
    }
    return (*words[:2], *sorted(others))


def is_derived(first: Instance) -> bool:
    """Tell whether slices were processed after reconstruction, or computed from other slices."""
    return first.image_type[:1] == ("DERIVED",) or is_secondary(first)


def is_secondary(first: Instance) -> bool:
    """Tell whether slices were computed from other slices."""
    words = first.image_type
    return words[1:2] == ("SECONDARY",) or any("MPR" in word for word in words)


def _kind(instances: Sequence[Instance]) -> SeriesKind:
    """Tell a chest by the words of the files; by the size of the scan where they say nothing of the body."""
    heights, first = heights_mm(instances), instances[0]
    words = _texts_on_body(first)
    if CHEST.search(words):
        return SeriesKind.CHEST_CT
    if ELSEWHERE.search(words) or heights is None or first.spacing_mm is None:
        return SeriesKind.CT
    is_trunk = np.ptp(heights) >= CHEST_MM and first.rows * first.spacing_mm[0] >= BODY_MM
    return SeriesKind.CHEST_CT if is_trunk else SeriesKind.CT


def _texts_on_body(first: Instance) -> str:
    """Return the words that tell the region: the series' own, where they name one; an examination shows several."""
    own = first.series_description.replace("_", " ")
    if CHEST.search(own) or ELSEWHERE.search(own):
        return own
    return " ".join((first.body_part, own, first.protocol, first.study_description)).replace("_", " ")
