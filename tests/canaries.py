"""A series full of canaries, and what is kept of it without identity."""

import zipfile
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from lungseg.records.identities import IdentityRule
from lungseg.scans.dicom.originals import keep_originals
from tests.dicom_phantoms import small_volume

RULE = IdentityRule(bytes(range(32)))
OTHER = IdentityRule(bytes(range(1, 33)))
VOLUME = small_volume(slices=3)
TEXT_VRS = ("AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
CANARY = "Kanarie"


def keep(files, target, rule=RULE):
    kept = keep_originals(files, target, rule)
    with zipfile.ZipFile(target) as archive:
        return kept, [archive.read(name) for name in archive.namelist()]


def datasets(members):
    return [dcmread(BytesIO(member)) for member in members]


def plant(dataset, k):
    """Put canaries into every text VR of standard and private elements, nested ones, an overlay and unknown ones."""
    dataset.PatientName, dataset.PatientID = f"{CANARY}^Bruni", f"ID-{CANARY}-77"
    dataset.OtherPatientIDs, dataset.AccessionNumber = f"{CANARY}8", f"ACC{CANARY}"
    dataset.InstitutionName, dataset.InstitutionAddress = f"Klinik {CANARY}", f"{CANARY} 1\r\nOrt"
    dataset.StationName, dataset.OperatorsName, dataset.PatientComments = CANARY, f"{CANARY}^O", f"see {CANARY}"
    dataset.SeriesDescription, dataset.StudyDescription = f"Thorax {CANARY} 2,5mm B30f", f"{CANARY} chest"
    dataset.ProtocolName, dataset.ImageComments, dataset.ConvolutionKernel = f"{CANARY}", f"{CANARY}", CANARY
    dataset.Manufacturer, dataset.ContrastBolusAgent = f"{CANARY} SIEMENS", f"{CANARY} 300"
    dataset.BodyPartExamined, dataset.ImageType = CANARY.upper(), ["ORIGINAL", "PRIMARY", "AXIAL", CANARY.upper()]
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19311231", "F", "092Y"
    dataset.AcquisitionDateTime, dataset.DateOfLastCalibration = "20240229101500.25+0100", "20240101"
    dataset.add_new(0x00181411, "DS", "1.5") if k else None
    item, inner = Dataset(), Dataset()
    inner.PatientID, inner.TextValue, inner.DateTime = f"{CANARY}9", f"in {CANARY}", "20240229"
    item.ConceptNameCodeSequence, item.RequestedProcedureDescription = Sequence([inner]), f"{CANARY} r"
    dataset.RequestAttributesSequence = Sequence([item])
    block = dataset.private_block(0x0019, f"{CANARY} 1.0", create=True)
    for number, vr in enumerate(TEXT_VRS):
        block.add_new(number, vr, f"http://{CANARY}" if vr == "UR" else f"{CANARY}{vr}")
    block.add_new(0x20, "UN", f"{CANARY} unknown".encode())
    block.add_new(0x21, "SQ", Sequence([inner]))
    dataset.add_new(0x60000010, "US", 4)
    dataset.add_new(0x60000022, "LO", f"{CANARY} overlay")
    dataset.add_new(0x60001500, "LO", CANARY)
    dataset.add_new(0x60003000, "OW", f"{CANARY}..".encode())
    dataset.DigitalSignaturesSequence = Sequence([inner])
    dataset.DataSetTrailingPadding = CANARY.encode() + b"\0"
    dataset.file_meta.SourceApplicationEntityTitle = CANARY
    dataset.preamble = CANARY.encode() + bytes(121)


def traces_in(content, *texts):
    """Return which texts are in bytes, in any encoding and in any case of letters."""
    places = content.lower(), content.lower().replace(b"\0", b"")
    forms = {text: {text.lower().encode(encoding) for encoding in ("utf-8", "utf-16-le")} for text in texts}
    return [text for text, encoded in forms.items() if any(form in place for form in encoded for place in places)]
