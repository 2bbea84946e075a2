"""From files that are handed in to cases: the run itself, in this process, on small phantoms."""

import gzip
import os
import shutil
import signal
import stat
import tarfile
import zipfile
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK
from pydicom.uid import JPEG2000Lossless

from lungseg.db import queue
from lungseg.intake.folder import IntakeFolder
from lungseg.intake.take import take
from lungseg.jobs.carry_out import Host, carry_out
from lungseg.jobs.process import INTAKE_CPU_S
from lungseg.records.findings import ScanSeverity
from lungseg.records.run_results import Segmentation
from lungseg.records.run_states import RunState
from lungseg.scans.formats import read_volume
from lungseg.services import cases, intake, storage
from lungseg.services.home import open_installation
from lungseg.services.installation import Installation
from lungseg.services.runs import latest_run, queue_segmentation
from tests.dicom_phantoms import (
    POSITION,
    SPACING_MM,
    STEP_MM,
    small_volume,
    write_enhanced,
    write_phases,
    write_secondary_capture,
    write_series,
    write_two_series,
)
from tests.dicom_series import spoil
from tests.narrowing import existing, of_type
from tests.phantoms import SPACING_MM as CHEST_SPACING_MM
from tests.phantoms import chest, write_chest
from tests.runs_at_work import is_gone, process_of, stand_by_of, wait_for

SPOT_HU = 1500
"""Of the one voxel of `small_volume` that marks a place."""


@pytest.fixture
def installation(environment, database, small_checkpoint, monkeypatch):
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", str(small_checkpoint))
    return Installation(replace(environment, checkpoint=str(small_checkpoint)), database)


@pytest.fixture
def hand_in(installation, tmp_path):
    """Hand files in and carry the run out; returns what is pending then."""

    def run(*files: Path, **options):
        drop = tmp_path / "drop"
        drop.mkdir(exist_ok=True)
        moved = []
        for path in files:
            target = drop / path.name
            (shutil.copytree if path.is_dir() else shutil.copy)(path, target)
            moved.append((path.name, target))
        intake.begin(installation, moved, **options)
        return carry_on(installation)

    return run


def carry_on(installation):
    """Carry the next intake's run out; returns what is pending then."""
    carry_out(installation, claimed(installation), Host())
    return intake.pending(installation)


def claimed(installation):
    with installation.database.begin() as session:
        return existing(queue.claim(session, "test", datetime.now(UTC), lane=queue.Lane.INTAKES))


def all_cases(installation):
    return [cases.get_case(installation, summary.case.id) for summary in cases.list_cases(installation)]


def the_case(installation):
    (case,) = all_cases(installation)
    return case


def zipped(target: Path, files, *, folder="", compression=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", compression) as archive:
        for path in files:
            archive.write(path, f"{folder}{path.name}")
    return target


def spot_mm(installation, case):
    """Return where the marked voxel lies, RAS mm."""
    volume = read_volume(installation.files.local(case.scan_path))
    (index,) = np.argwhere(volume.hu == SPOT_HU)
    return volume.grid.affine[:3, :3] @ index + volume.grid.affine[:3, 3]


def expected_spot(volume):
    k, row, column = volume.shape[0] // 3, volume.shape[1] // 4, volume.shape[2] - 5
    offset = np.array([column * SPACING_MM[1], row * SPACING_MM[0], k * STEP_MM])
    return (np.array(POSITION) + offset) * [-1, -1, 1]


def failure(states):
    (state,) = states
    assert state.run is not None
    assert state.run.state is RunState.FAILED
    assert state.run.failure is not None
    return state.run.failure


def test_folder_with_other_files_beside_the_series(installation, hand_in, tmp_path):
    folder = tmp_path / "Muster Anna"
    write_series(folder / "CT" / "deep" / "er")
    write_secondary_capture(folder / "report.dcm")
    (folder / "letter.pdf").write_bytes(b"%PDF-1.4 " + b"x" * 400)
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 100)
    (folder / "__MACOSX").mkdir()
    (folder / "empty").touch()
    assert hand_in(folder) == ()
    case = the_case(installation)
    np.testing.assert_allclose(spot_mm(installation, case), expected_spot(small_volume()), atol=0.01)
    assert existing(latest_run(installation, case.id)).state is RunState.QUEUED
    assert case.original_path
    with zipfile.ZipFile(installation.files.local(case.original_path)) as archive:
        assert len(archive.namelist()) == len(small_volume())
    assert case.examination
    assert case.examination.is_deidentified
    assert not list((installation.settings.home / "intakes").iterdir())
    written = [path for path in installation.settings.home.rglob("*") if path.is_file() and path.suffix != ".sqlite"]
    assert not any(b"Doe" in path.read_bytes() for path in written if "identities" not in path.parts)


@pytest.mark.parametrize("kind", ["zip", "stored zip", "tar", "tar.gz", "zip in zip", "zip in folder"])
def test_archives(installation, hand_in, tmp_path, kind):
    files = write_series(tmp_path / "series")
    target = tmp_path / "export"
    if kind == "zip in folder":
        target.mkdir()
        zipped(target / "inner.zip", files)
    elif kind == "zip in zip":
        zipped(target, [zipped(tmp_path / "inner.zip", files)])
    elif "zip" in kind:
        zipped(target, files, compression=zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED)
    else:
        with tarfile.open(target, "w:gz" if "gz" in kind else "w") as archive:
            archive.add(tmp_path / "series", "series")
    assert hand_in(target) == ()
    case = the_case(installation)
    np.testing.assert_allclose(spot_mm(installation, case), expected_spot(small_volume()), atol=0.01)


def test_several_files_dropped_together(installation, hand_in, tmp_path):
    assert hand_in(*reversed(write_series(tmp_path / "series"))) == ()
    assert the_case(installation).shape == small_volume().shape[::-1]


def test_enhanced_file_alone(installation, hand_in, tmp_path):
    assert hand_in(write_enhanced(tmp_path / "enhanced")) == ()
    np.testing.assert_allclose(spot_mm(installation, the_case(installation)), expected_spot(small_volume()), atol=0.01)


def test_two_series_wait_for_a_choice(installation, hand_in, tmp_path):
    write_two_series(tmp_path / "both")
    (state,) = hand_in(tmp_path / "both")
    assert state.run.state is RunState.DONE
    first, second = state.open_offers
    assert [first.is_preferred, second.is_preferred] == [True, False]
    assert first.kernel == "B30f"
    assert all((state.thumbnails / offer.thumbnail).is_file() for offer in state.open_offers)
    assert all_cases(installation) == []

    intake.choose(installation, state.intake.id, [second.key])
    assert carry_on(installation) == ()
    assert the_case(installation).examination.kernel == "B70f"


def test_both_of_two_series_can_be_taken(installation, hand_in, tmp_path):
    write_two_series(tmp_path / "both")
    (state,) = hand_in(tmp_path / "both", place=3)
    intake.choose(installation, state.intake.id, [offer.key for offer in state.open_offers])
    assert carry_on(installation) == ()
    assert {case.examination.kernel for case in all_cases(installation)} == {"B30f", "B70f"}
    assert sorted(existing(latest_run(installation, case.id)).priority for case in all_cases(installation)) == [3, 4]
    assert len({case.examination.patient for case in all_cases(installation)}) == 1


def test_study_that_comes_while_nobody_is_there(installation, hand_in, tmp_path):
    write_two_series(tmp_path / "both")
    (state,) = hand_in(tmp_path / "both", unattended=True)
    assert the_case(installation).examination.kernel == "B30f"
    assert [offer.kernel for offer in state.open_offers] == ["B70f"]


def test_phases_are_told_apart(installation, hand_in, tmp_path):
    write_phases(tmp_path / "phases", 2)
    (state,) = hand_in(tmp_path / "phases")
    assert [offer.slices for offer in state.open_offers] == [len(small_volume())] * 2
    assert "phase" in " ".join(offer.note for offer in state.open_offers).lower()
    intake.choose(installation, state.intake.id, [state.open_offers[1].key])
    assert carry_on(installation) == ()
    with zipfile.ZipFile(installation.files.local(the_case(installation).original_path)) as archive:
        assert len(archive.namelist()) == len(small_volume())


def test_two_patients_stand_apart(installation, hand_in, tmp_path):
    write_series(tmp_path / "both" / "1", patient="P1")
    write_series(tmp_path / "both" / "2", patient="P2")
    (state,) = hand_in(tmp_path / "both")
    assert [offer.is_preferred for offer in state.open_offers] == [True, True]
    intake.choose(installation, state.intake.id, [offer.key for offer in state.open_offers])
    assert carry_on(installation) == ()
    assert len({case.examination.patient for case in all_cases(installation)}) == 2


def tilt(dataset, k):
    cosine, sine = np.cos(np.radians(18)), np.sin(np.radians(18))
    dataset.ImageOrientationPatient = [1, 0, 0, 0, round(float(cosine), 8), round(float(sine), 8)]
    dataset.ImagePositionPatient = [POSITION[0], POSITION[1], round(POSITION[2] + k * STEP_MM, 6)]


def test_repairs_are_findings_of_the_case(installation, hand_in, tmp_path):
    write_series(tmp_path / "tilted", change=tilt)
    assert hand_in(tmp_path / "tilted") == ()
    case = the_case(installation)
    assert "dicom.gantry_tilt" in {finding.code for finding in case.findings}
    down_mm, degrees = 9 * SPACING_MM[0], np.radians(18)  # of the marked voxel: slice 8, row 9, column 39
    offset = np.array([39 * SPACING_MM[1], down_mm * np.cos(degrees), 8 * STEP_MM + down_mm * np.sin(degrees)])
    volume = read_volume(installation.files.local(case.scan_path))
    brightest = np.unravel_index(int(volume.hu.argmax()), volume.hu.shape)
    place = volume.grid.affine[:3, :3] @ brightest + volume.grid.affine[:3, 3]
    np.testing.assert_allclose(place, (np.array(POSITION) + offset) * [-1, -1, 1], atol=max(*SPACING_MM, STEP_MM))


def test_missing_slice_is_interpolated_and_said(installation, hand_in, tmp_path):
    write_series(tmp_path / "series", change=lambda dataset, k: k != 12)
    assert hand_in(tmp_path / "series") == ()
    case = the_case(installation)
    assert case.shape[2] == len(small_volume())
    (finding,) = [finding for finding in case.findings if finding.code == "dicom.slice_missing"]
    assert finding.severity is ScanSeverity.WARNING
    with zipfile.ZipFile(installation.files.local(case.original_path)) as archive:
        assert len(archive.namelist()) == len(small_volume()) - 1


def as_pet(dataset, k):
    dataset.Modality, dataset.SOPClassUID = "PT", "1.2.840.10008.5.1.4.1.1.128"
    dataset.RescaleType = "BQML"


def test_ct_beside_a_pet_is_taken_at_once(installation, hand_in, tmp_path):
    write_series(tmp_path / "both" / "ct")
    write_series(tmp_path / "both" / "pet", series="pet", change=as_pet)
    assert hand_in(tmp_path / "both") == ()
    assert the_case(installation).examination.description.startswith("Thorax")


def test_pet_alone_is_refused_with_the_reason(installation, hand_in, tmp_path):
    write_series(tmp_path / "pet", change=as_pet)
    (state,) = hand_in(tmp_path / "pet")
    assert state.run.state is RunState.DONE
    assert state.open_offers == ()
    (offer,) = state.survey.offers
    assert offer.refusal
    assert all_cases(installation) == []


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_other_formats_in_a_zip(installation, hand_in, tmp_path, ending):
    write_chest(tmp_path / "chest.nii")
    SimpleITK.WriteImage(
        SimpleITK.Cast(SimpleITK.ReadImage(str(tmp_path / "chest.nii")), SimpleITK.sitkInt16),
        str(tmp_path / f"scan{ending}"),
    )
    assert hand_in(zipped(tmp_path / "x.zip", [tmp_path / f"scan{ending}"], folder="a/")) == ()
    case = the_case(installation)
    ours, theirs = (read_volume(path) for path in (installation.files.local(case.scan_path), tmp_path / "chest.nii"))
    np.testing.assert_array_equal(ours.hu, theirs.hu)
    np.testing.assert_allclose(ours.grid.affine, theirs.grid.affine, atol=1e-4)
    assert case.original_path is None
    assert case.examination is None


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_nifti_in_a_zip_stays_as_it_is(installation, hand_in, tmp_path, name):
    write_chest(tmp_path / name)
    assert hand_in(zipped(tmp_path / "x.zip", [tmp_path / name])) == ()
    stored = installation.files.local(the_case(installation).scan_path)
    assert read_bytes(stored) == read_bytes(tmp_path / name)


def read_bytes(path):
    content = path.read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def test_scan_beside_its_mask_waits_for_a_choice(installation, hand_in, tmp_path):
    (tmp_path / "set").mkdir()
    for name in ("scan.nii", "mask.nii"):
        write_chest(tmp_path / "set" / name)
    (state,) = hand_in(tmp_path / "set")
    assert len(state.open_offers) == 2


def test_empty_zip_says_so(installation, hand_in, tmp_path):
    assert failure(hand_in(zipped(tmp_path / "x.zip", []))).code in {"scan.no_series", "archive.damaged", "scan.empty"}
    assert all_cases(installation) == []


def test_files_that_are_no_scans_are_named(hand_in, tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4 " + b"x" * 400)
    found = failure(hand_in(tmp_path / "a.pdf"))
    assert found.code == "scan.no_series"
    assert "a PDF document: 1" in found.found


def test_bomb_is_refused_before_it_fills_the_disk(installation, hand_in, tmp_path):
    block = bytes(1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w") as member:
        for _ in range(400):
            member.write(block)
    found = failure(hand_in(tmp_path / "bomb.zip"))
    assert found.code.startswith("archive.")
    size = sum(path.stat().st_size for path in installation.settings.home.rglob("*") if path.is_file())
    assert size < 2 << 20


def test_unpacking_ends_before_the_disk_is_full_and_leaves_no_part(installation, hand_in, tmp_path, monkeypatch):
    write_series(tmp_path / "series")
    archive = Path(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "series"))
    with monkeypatch.context() as patch:
        patch.setattr(storage, "RESERVE_BYTES", 1 << 60)
        states = hand_in(archive)
    assert failure(states).code == "storage.disk_full"
    folder = intake.folder_of(installation.files, states[0].intake.id)
    assert not folder.files.exists()
    assert (folder.upload / "000001").exists()
    intake.try_again(installation, states[0].intake.id)
    assert carry_on(installation) == ()
    assert the_case(installation)


def test_damaged_slice_fails_the_series_with_the_reason(installation, hand_in, tmp_path):
    spoil(write_series(tmp_path / "series", transfer_syntax=JPEG2000Lossless)[9])
    states = hand_in(tmp_path / "series")
    found = failure(states)
    assert found.code == "scan.truncated"
    assert states[0].ledger.failures.keys() == {offer.key for offer in states[0].survey.offers}
    assert all_cases(installation) == []
    assert installation.files.list("scans") == ()
    assert installation.files.list("originals") == ()


def test_one_damaged_series_costs_the_other_nothing(installation, hand_in, tmp_path):
    files = write_two_series(tmp_path / "both", transfer_syntax=JPEG2000Lossless)
    spoil(files[9])
    (state,) = hand_in(tmp_path / "both")
    intake.choose(installation, state.intake.id, [offer.key for offer in state.open_offers])
    assert failure(carry_on(installation)).code == "scan.truncated"
    assert the_case(installation).examination.kernel == "B30f"


def test_same_series_again_is_asked_about(installation, hand_in, tmp_path):
    files = write_series(tmp_path / "series")
    assert hand_in(tmp_path / "series") == ()
    first = the_case(installation)
    (state,) = hand_in(zipped(tmp_path / "again.zip", reversed(files)))
    (key,) = state.ledger.twins
    assert state.ledger.twins[key] == first.id
    assert all_cases(installation) == [first]
    intake.choose(installation, state.intake.id, [key], may_be_twin=True)
    assert carry_on(installation) == ()
    again = next(case for case in all_cases(installation) if case.id != first.id)
    assert again.scan_sha256 == first.scan_sha256
    assert again.examination == first.examination


def test_study_that_a_pacs_sends_again_is_the_same_case(installation, hand_in, tmp_path):
    write_series(tmp_path / "series")
    assert hand_in(tmp_path / "series", unattended=True) == ()
    first = the_case(installation)
    assert hand_in(tmp_path / "series", unattended=True) == ()
    assert the_case(installation) == first


def make_too_long(dataset_path):
    """Let the element of the pixels say that it has more bytes than there are; all pixels are there."""
    content = dataset_path.read_bytes()
    place = content.rindex(b"\xe0\x7f\x10\x00OW") + 8
    length = int.from_bytes(content[place : place + 4], "little")
    dataset_path.write_bytes(content[:place] + (length + 8).to_bytes(4, "little") + content[place + 4 :])


@pytest.mark.parametrize("policy", ["remove", "keep"])
def test_file_that_can_be_read_and_not_kept_is_a_finding(installation, tmp_path, policy):
    installation = replace(installation, settings=replace(installation.settings, identity=policy))
    make_too_long(write_series(tmp_path / "series")[9])
    intake.begin(installation, [("series", tmp_path / "series")])
    assert carry_on(installation) == ()
    case = the_case(installation)
    assert case.shape[2] == len(small_volume())
    (finding,) = [finding for finding in case.findings if finding.code == "intake.files_not_kept"]
    assert finding.text.startswith(f"Of {len(small_volume())} DICOM files of the series 1 can't be kept with the case")
    with zipfile.ZipFile(installation.files.local(case.original_path)) as archive:
        assert len(archive.namelist()) == len(small_volume()) - 1


def test_other_content_under_the_same_series_is_no_twin(installation, hand_in, tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", small_volume() + np.int16(1))
    assert hand_in(tmp_path / "a") == ()
    assert hand_in(tmp_path / "b") == ()
    first, second = all_cases(installation)
    assert first.examination.series_uid == second.examination.series_uid
    assert first.scan_sha256 != second.scan_sha256


def test_damaged_member_of_an_archive_is_a_finding(installation, hand_in, tmp_path):
    archive = zipped(tmp_path / "x.zip", write_series(tmp_path / "series"), compression=zipfile.ZIP_STORED)
    with zipfile.ZipFile(archive) as opened:
        place = opened.infolist()[-1].header_offset + 900
    content = bytearray(archive.read_bytes())
    content[place : place + 40] = bytes(40)
    archive.write_bytes(content)
    assert hand_in(archive) == ()
    case = the_case(installation)
    assert case.shape[2] == len(small_volume()) - 1
    assert "intake.lost_files" in {finding.code for finding in case.findings}


def test_damaged_scan_of_another_format_is_refused_with_the_reason(installation, hand_in, tmp_path):
    write_chest(tmp_path / "scan.nii")
    content = bytearray((tmp_path / "scan.nii").read_bytes())
    content[42:44] = (0).to_bytes(2, "little")  # the header announces an axis of length zero
    (tmp_path / "scan.nii").write_bytes(content)
    (state,) = hand_in(zipped(tmp_path / "x.zip", [tmp_path / "scan.nii"]))
    assert state.open_offers == ()
    (offer,) = state.survey.offers
    assert offer.description == "scan.nii"
    assert offer.refusal
    intake.discard(installation, state.intake.id)
    assert not list((installation.settings.home / "intakes").iterdir())


def test_run_of_an_intake_that_is_gone_has_nothing_to_do(installation, tmp_path):
    write_series(tmp_path / "drop")
    intake_id = intake.begin(installation, [("a", tmp_path / "drop")])
    shutil.rmtree(installation.settings.home / "intakes" / intake_id)
    assert carry_on(installation) == ()
    assert all_cases(installation) == []


class Killed(BaseException):
    """Stands for the end of the process at some place."""


@pytest.mark.parametrize(
    "place",
    [
        "lungseg.jobs.intake.contents_of",
        "lungseg.jobs.intake.take",
        "lungseg.jobs.intake.adopt",
        "lungseg.services.cases.manifests.keep_case",
        "lungseg.jobs.intake.queue_segmentation",
        "lungseg.intake.folder.IntakeFolder.remove",
        "lungseg.intake.unpack.Unpacked",
    ],
)
def test_attempt_after_a_kill_makes_one_case(installation, tmp_path, monkeypatch, place):
    write_series(tmp_path / "home_drop")
    intake.begin(installation, [("a", tmp_path / "home_drop")])
    with installation.database.begin() as session:
        run = queue.claim(session, "test", datetime.now(UTC), lane=queue.Lane.INTAKES)

    def kill(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(place, kill)
        with pytest.raises(Killed):
            carry_out(installation, existing(run), Host())
    with installation.database.begin() as session:
        queue.requeue_stale(session, queue.StaleRuns("test"), datetime.now(UTC))
    assert carry_on(installation) == ()
    case = the_case(installation)
    assert existing(latest_run(installation, case.id)).state is RunState.QUEUED
    assert read_volume(installation.files.local(case.scan_path)).grid.shape == case.shape


@pytest.mark.parametrize("name", ["keep_listing", "keep_intake"])
def test_choice_is_there_after_a_kill_while_it_is_kept(installation, tmp_path, monkeypatch, name):
    write_two_series(tmp_path / "both")
    intake_id = intake.begin(installation, [("Muster Anna", tmp_path / "both")])
    run = claimed(installation)

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(IntakeFolder, name, kill)
        carry_out(installation, run, Host())
    with installation.database.begin() as session:
        queue.requeue_stale(session, queue.StaleRuns("test"), datetime.now(UTC))
    (state,) = carry_on(installation)
    assert [offer.kernel for offer in state.open_offers] == ["B30f", "B70f"]
    folder = intake.folder_of(installation.files, intake_id)
    assert not folder.upload.exists()
    intake.choose(installation, intake_id, [offer.key for offer in state.open_offers])
    assert carry_on(installation) == ()
    assert len(all_cases(installation)) == 2


def test_unpacked_files_reach_the_disk_before_the_upload_goes(installation, hand_in, tmp_path, monkeypatch):
    files = write_two_series(tmp_path / "both")
    flushed, fsync = set(), os.fsync

    def note(descriptor):
        if list((installation.settings.home / "intakes").glob("*/upload/*")):
            flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    (state,) = hand_in(zipped(tmp_path / "both.zip", files))
    folder = intake.folder_of(installation.files, state.intake.id)
    assert not folder.upload.exists()
    unpacked = list(folder.files.iterdir())
    assert len(unpacked) == len(files)
    assert {path.stat().st_ino for path in (folder.files, *unpacked)} <= flushed


def test_no_name_of_a_file_is_kept_but_of_what_a_reader_chooses_from(installation, hand_in, tmp_path):
    folder = tmp_path / "drop of today"
    write_two_series(folder / "Muster Anna")
    (folder / "Muster letter.pdf").write_bytes(b"%PDF-1.4 " + b"x" * 400)
    write_chest(folder / "other.nii")
    (state,) = hand_in(
        zipped(tmp_path / "x.zip", [path for path in folder.rglob("*") if path.is_file()], folder="Anna/")
    )
    own = intake.folder_of(installation.files, state.intake.id)
    assert own.intake().file_names == ()
    assert {name for name in existing(own.listing()).names.values() if name} == {"Anna/other.nii"}
    home = installation.settings.home
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in kept if b"Muster" in path.read_bytes()]
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (own.path, own.files, own.thumbnails)} == {0}
    intake.choose(installation, state.intake.id, [offer.key for offer in state.open_offers])
    carry_on(installation)
    assert "other.nii" in {case.name for case in all_cases(installation)}


@pytest.mark.parametrize("name", ["listing.json", "intake.json"])
def test_damaged_record_costs_no_scan(installation, hand_in, tmp_path, name):
    write_two_series(tmp_path / "both")
    write_pair(tmp_path / "both" / "pair")
    (state,) = hand_in(zipped(tmp_path / "x.zip", [path for path in (tmp_path / "both").rglob("*") if path.is_file()]))
    folder = intake.folder_of(installation.files, state.intake.id)
    (folder.path / name).write_text("{")
    intake.choose(installation, state.intake.id, [offer.key for offer in state.open_offers])
    assert carry_on(installation) == ()
    found = all_cases(installation)
    assert len(found) == 3
    is_uncertain = [any(finding.code == "intake.lost_files" for finding in case.findings) for case in found]
    assert sum(is_uncertain) == (2 if name == "listing.json" else 0)


def write_pair(folder):
    folder.mkdir()
    write_chest(folder / "whole.nii")
    image = SimpleITK.Cast(SimpleITK.ReadImage(str(folder / "whole.nii")), SimpleITK.sitkInt16)
    SimpleITK.WriteImage(image, str(folder / "scan.mhd"))
    (folder / "whole.nii").unlink()


def test_intake_whose_files_are_gone_says_so(installation, hand_in, tmp_path):
    write_two_series(tmp_path / "both")
    (state,) = hand_in(tmp_path / "both")
    folder = intake.folder_of(installation.files, state.intake.id)
    shutil.rmtree(folder.files)
    (folder.path / "listing.json").unlink()
    intake.choose(installation, state.intake.id, [state.open_offers[0].key])
    found = failure(carry_on(installation))
    assert (found.code, found.found) == ("record.not_found", "Nothing is there any more of what was handed in.")
    intake.discard(installation, state.intake.id)


def test_series_is_not_written_where_the_disk_would_be_full(installation, hand_in, tmp_path, monkeypatch):
    files = write_two_series(tmp_path / "both")
    (state,) = hand_in(tmp_path / "both")
    most = sum(path.stat().st_size for path in files) // 2 + 2 * small_volume().size  # of one of the two
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(tmp_path)._replace(free=storage.RESERVE_BYTES + most - 1000)
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        patch.setattr("lungseg.jobs.intake.take", lambda *_, **__: pytest.fail("it was written"))
        intake.choose(installation, state.intake.id, [offer.key for offer in state.open_offers])
        assert failure(carry_on(installation)).code == "storage.disk_full"
    intake.try_again(installation, state.intake.id)
    assert carry_on(installation) == ()
    assert len(all_cases(installation)) == 2


def test_case_that_is_deleted_while_its_intake_goes_on_is_not_made_again(installation, tmp_path, monkeypatch):
    write_two_series(tmp_path / "both")
    intake_id = intake.begin(installation, [("both", tmp_path / "both")])
    (state,) = carry_on(installation)
    intake.choose(installation, intake_id, [offer.key for offer in state.open_offers])
    run = claimed(installation)
    done: list[int] = []

    def kill_at_the_second(*arguments, **options):
        if done:
            raise Killed
        done.append(1)
        return take(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("lungseg.jobs.intake.take", kill_at_the_second)
        carry_out(installation, run, Host())
    first = the_case(installation)
    cases.delete_case(installation, first.id)
    with installation.database.begin() as session:
        queue.requeue_stale(session, queue.StaleRuns("test"), datetime.now(UTC))
    assert carry_on(installation) == ()
    assert the_case(installation).examination.kernel != first.examination.kernel


def test_case_that_is_deleted_as_soon_as_it_is_made_fails_nothing(installation, hand_in, tmp_path, monkeypatch):
    def queue_after_deletion(installation, case_id, **options):
        cases.delete_case(installation, case_id)
        return queue_segmentation(installation, case_id, **options)

    monkeypatch.setattr("lungseg.jobs.intake.queue_segmentation", queue_after_deletion)
    write_series(tmp_path / "series")
    assert hand_in(tmp_path / "series") == ()
    assert all_cases(installation) == []


def test_series_that_was_deleted_can_be_chosen_again(installation, hand_in, tmp_path):
    write_two_series(tmp_path / "both")
    (state,) = hand_in(tmp_path / "both", unattended=True)
    taken = the_case(installation)
    cases.delete_case(installation, taken.id)
    (state,) = intake.pending(installation)
    intake.choose(installation, state.intake.id, [offer.key for offer in state.open_offers])
    assert carry_on(installation) == ()
    assert {case.examination.kernel for case in all_cases(installation)} == {"B30f", "B70f"}


def test_stopped_intake_goes_on_where_it_was(installation, tmp_path):
    write_series(tmp_path / "drop")
    intake.begin(installation, [("a", tmp_path / "drop")])
    with installation.database.begin() as session:
        run = queue.claim(session, "test", datetime.now(UTC), lane=queue.Lane.INTAKES)
    carry_out(installation, existing(run), Host(should_leave=lambda: True, ends_for_good=True))
    (state,) = intake.pending(installation)
    assert existing(state.run).state is RunState.CANCELLED
    assert all_cases(installation) == []
    intake.try_again(installation, state.intake.id)
    assert carry_on(installation) == ()
    assert the_case(installation)


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="the system does not tell limits of other processes")
def test_child_that_handles_files_of_strangers_has_limits(installation, waiting_worker, tmp_path):
    write_series(tmp_path / "series")
    child = stand_by_of(waiting_worker)
    begin_copy(installation, tmp_path / "series")

    def limits():
        with suppress(psutil.Error):
            memory, cpu = child.rlimit(psutil.RLIMIT_AS)[0], child.rlimit(psutil.RLIMIT_CPU)[0]
            return (memory, cpu) if psutil.RLIM_INFINITY not in {memory, cpu} else None

    memory, cpu_s = wait_for(limits)
    assert 0 < memory - installation.settings.limits.memory_bytes < 4 << 30
    assert 0 < cpu_s - INTAKE_CPU_S < 60
    assert wait_for(lambda: all_cases(installation))


def test_child_that_stands_by_carries_one_intake_out_and_another_takes_its_place(
    installation, waiting_worker, tmp_path
):
    write_series(tmp_path / "series")
    ready = stand_by_of(waiting_worker)
    intake_id = begin_copy(installation, tmp_path / "series")
    run = existing(state_of(installation, intake_id).run)
    process = wait_for(lambda: process_of(installation.settings, run.id))
    assert process.pid == ready.pid
    assert wait_for(lambda: all_cases(installation))
    wait_for(lambda: is_gone(ready))
    assert stand_by_of(waiting_worker).pid != ready.pid


def test_intake_does_not_need_the_child_that_stood_by(installation, waiting_worker, tmp_path):
    write_series(tmp_path / "series")
    ready = stand_by_of(waiting_worker)
    ready.kill()
    wait_for(lambda: is_gone(ready))
    begin_copy(installation, tmp_path / "series")
    assert wait_for(lambda: all_cases(installation))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_child_that_stands_by_ends_with_its_worker(waiting_worker, number):
    ready = stand_by_of(waiting_worker)
    waiting_worker.send_signal(number)
    wait_for(lambda: is_gone(ready))


def begin_copy(installation, folder):
    shutil.copytree(folder, installation.settings.home / "drop")
    return intake.begin(installation, [("drop", installation.settings.home / "drop")])


def state_of(installation, intake_id):
    return next(state for state in intake.pending(installation) if state.intake.id == intake_id)


@pytest.fixture
def waiting_worker(installation, worker):
    """A worker of its own process."""
    open_installation(installation)
    return worker()


def test_worker_takes_a_series_in_and_its_result_says_what_was_repaired(installation, waiting_worker, tmp_path):
    hu, _ = chest()
    planes = np.transpose(hu[::-1, ::-1], (2, 1, 0))  # columns run to the left, rows to the back
    write_series(
        tmp_path / "series",
        planes,
        spacing_mm=(CHEST_SPACING_MM[1], CHEST_SPACING_MM[0]),
        step_mm=CHEST_SPACING_MM[2],
        change=lambda _, k: k != 30,
    )
    begin_copy(installation, tmp_path / "series")
    case = wait_for(lambda: all_cases(installation))[0]
    run = wait_for(lambda: ended(installation, case.id))
    assert run.state is RunState.DONE
    assert case.shape == hu.shape
    assert "dicom.slice_missing" in {finding.code for finding in of_type(Segmentation, run.result).findings}
    (summary,) = cases.list_cases(installation)
    assert any("missing" in text for text in summary.doubts)
    assert intake.pending(installation) == ()


def ended(installation, case_id):
    run = latest_run(installation, case_id)
    return run if run and run.state.is_final else None


def test_child_that_is_killed_again_and_again_is_not_started_for_ever(installation, waiting_worker, tmp_path):
    write_series(tmp_path / "series")
    intake_id = begin_copy(installation, tmp_path / "series")
    killed = set()

    def kill():
        state = state_of(installation, intake_id)
        if state.is_active:
            with suppress(psutil.Error):
                child = process_of(installation.settings, state.run.id)
                if child and child.pid not in killed:
                    child.kill()
                    killed.add(child.pid)
        return not state.is_active

    wait_for(kill)
    assert len(killed) == queue.MAX_CRASHES_IN_A_ROW
    assert failure([state_of(installation, intake_id)]).code == "run.worker_lost"
    intake.try_again(installation, intake_id)
    assert wait_for(lambda: all_cases(installation))


def test_of_two_workers_one_takes_in_and_the_next_goes_on_after_a_kill(installation, worker, tmp_path):
    open_installation(installation)
    volume = np.random.default_rng(3).integers(-1000, 200, (60, 256, 256)).astype(np.int16)
    files = write_series(tmp_path / "series", volume)
    dropped = zipped(installation.settings.home / "drop", files)
    intake_id = intake.begin(installation, [("drop.zip", dropped)])
    both = [worker(), worker()]

    def at_work():
        run = state_of(installation, intake_id).run
        return run and run.state is RunState.RUNNING and run.progress

    wait_for(at_work)
    (at_it,) = (process for process in both if process.poll() is None and psutil.Process(process.pid).children())
    at_it.kill()
    at_it.wait()
    worker()  # the other one may have left, since this one was alive
    case = wait_for(lambda: all_cases(installation))[0]
    wait_for(lambda: not list((installation.settings.home / "intakes").iterdir()))
    assert the_case(installation) == case
    assert read_volume(installation.files.local(case.scan_path)).grid.shape == case.shape == volume.shape[::-1]
    with zipfile.ZipFile(installation.files.local(existing(case.original_path))) as archive:
        assert len(archive.namelist()) == len(files)
    wait_for(lambda: latest_run(installation, case.id))
