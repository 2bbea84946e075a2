"""A patient's name, in tags, files, folders and archives, is nowhere but in the intake and in what leads back."""

import shutil
import zipfile
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lungseg.db import queue
from lungseg.files import keys
from lungseg.jobs.carry_out import Host, carry_out
from lungseg.services import cases, intake
from lungseg.services.installation import Installation
from tests.canaries import CANARY, plant, traces_in
from tests.dicom_phantoms import small_volume, uid_of, write_series
from tests.narrowing import existing


@pytest.fixture
def installation(environment, database, small_checkpoint, monkeypatch):
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", str(small_checkpoint))
    return Installation(replace(environment, checkpoint=str(small_checkpoint)), database)


def hand_in(installation, path, name):
    intake.begin(installation, [(name, path)])
    with installation.database.begin() as session:
        run = queue.claim(session, "test", datetime.now(UTC), lane=queue.Lane.INTAKES)
    carry_out(installation, existing(run), Host())
    return intake.pending(installation)


def files_with_traces(installation, *but):
    home = installation.settings.home
    return [
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file()
        and path.relative_to(home).parts[0] not in but
        and traces_in(path.read_bytes() + str(path).encode(), CANARY, "20240229", uid_of("P1", "study"))
    ]


def pack(files, target):
    """Pack files into folders of the patient's name, a damaged one and one that is no scan among them."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in files:
            archive.write(path, f"{CANARY}^Bruni/20240229/{CANARY} {path.name}")
        archive.writestr(f"{CANARY}/damaged {CANARY}", files[0].read_bytes()[:900])
        archive.writestr(f"{CANARY}/{CANARY}.pdf", b"%PDF-1.4 " + CANARY.encode())
        archive.writestr(f"{CANARY}/{CANARY}.zip", b"PK\3\4" + CANARY.encode())
        archive.writestr(f"{CANARY}/{CANARY}.nii", b"\x5c\1\0\0" + bytes(340) + b"n+1\0")
    return target


def test_name_of_a_patient_is_in_what_leads_back_alone(installation, tmp_path, caplog):
    files = write_series(tmp_path / "series", small_volume(), change=plant)
    assert hand_in(installation, pack(files, tmp_path / "drop.zip"), f"{CANARY}^Bruni.zip") == ()
    (summary,) = cases.list_cases(installation)
    assert existing(summary.case.examination).patient.startswith("P-")
    assert files_with_traces(installation, keys.IDENTITIES) == []
    assert files_with_traces(installation) == [keys.identity(summary.case.id)]
    assert CANARY.lower() not in caplog.text.lower()


def burn_in(dataset, k):
    plant(dataset, k)
    dataset.BurnedInAnnotation = "YES"


def cut(files):
    for path in files:
        path.write_bytes(path.read_bytes()[:-300])


def put_in_pixels(files):
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content[:-300] + CANARY.encode() + content[-300 + len(CANARY) :])


@pytest.mark.parametrize(
    ("change", "spoil"),
    [
        (burn_in, list),
        (plant, cut),
        (plant, put_in_pixels),
        (plant, lambda files: [path.unlink() for path in files[4:9]]),
    ],
    ids=["burned in", "cut off", "left in pixels", "slices missing"],
)
def test_what_can_not_be_taken_in_tells_no_name_either(installation, tmp_path, caplog, change, spoil):
    files = write_series(tmp_path / "series", small_volume(), change=change)
    spoil(files)
    drop = shutil.move(pack([path for path in files if path.exists()], tmp_path / "drop.zip"), tmp_path / "d")
    (state,) = hand_in(installation, drop, f"{CANARY}^Bruni.zip")
    assert cases.list_cases(installation) == ()
    assert files_with_traces(installation, "intakes") == []
    assert CANARY.lower() not in caplog.text.lower()
    intake.discard(installation, state.intake.id)
    installation.database.scrub()
    assert files_with_traces(installation) == []
