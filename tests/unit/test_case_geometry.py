"""The geometry of a scan stands with its case: nobody opens the scan for its grid, and no case of before is lost."""

import hashlib
import shutil
from contextlib import closing
from dataclasses import replace

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from lungseg.db import cases as rows
from lungseg.db import migrate, open_database
from lungseg.errors import ScanError, StorageError
from lungseg.files import keys
from lungseg.records.cases import Case
from lungseg.scans.formats import read_mask
from lungseg.scans.geometry import Grid
from lungseg.services import cases, home, manifests, recovery, storage
from lungseg.services.geometry import complete_geometries, geometry_of
from lungseg.services.installation import Installation
from lungseg.services.viewing import report, view_of
from tests.narrowing import existing
from tests.phantoms import SHAPE, graded_map, ras_affine, write_chest
from tests.scan_files import geometry_of as geometry_in
from tests.scan_files import grid_of
from tests.seeds import add_case, add_prediction


@pytest.fixture
def case(settings, database, chest_scan):
    return add_case(settings, database, chest_scan, "Phantom")


@pytest.fixture
def before(settings, chest_scan):
    """An installation of the release before, with two cases whose scans are there; returns their ids."""
    engine = create_engine(settings.database_url)
    ids = [character * 32 for character in "ab"]
    with engine.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        for case_id in ids:
            scan = settings.home / "scans" / f"{case_id}.nii.gz"
            scan.parent.mkdir(exist_ok=True)
            shutil.copy(chest_scan, scan)
            sha256, size = hashlib.sha256(scan.read_bytes()).hexdigest(), scan.stat().st_size
            connection.exec_driver_sql(
                "INSERT INTO cases (id, name, scan_path, scan_sha256, scan_bytes, shape, spacing_mm, orientation, "
                f"is_demo, created_at) VALUES ('{case_id}', 'chest', 'scans/{scan.name}', '{sha256}', {size}, "
                "'[96, 80, 40]', '[3.0, 3.2, 6.0]', 'LPS', 0, '2026-01-02 03:04:05')"
            )
    engine.dispose()
    return ids


@pytest.fixture
def opened(settings, before):
    with closing(open_database(settings.database_url)) as database:
        yield Installation(settings, database)


def test_case_knows_its_geometry_from_the_start(installation, case):
    kept = cases.get_case(installation, case.id)
    assert kept.geometry == geometry_in(installation.files.local(case.scan_path))
    assert manifests.read_manifest(Case, installation.files.local(keys.case_manifest(case.id))) == kept
    (listed,) = cases.list_cases(installation)
    installation.files.local(case.scan_path).unlink()
    assert geometry_of(installation, listed.case) == kept.geometry


def test_page_report_and_slider_work_without_the_scan(settings, installation, database, case):
    probability = graded_map(Grid(SHAPE, ras_affine()))
    add_prediction(
        settings, database, case, probability.above(0.5), probability=probability,
        threshold=0.5, min_lesion_ml=1.0, calibration=None, doubtful_below=None,
    )  # fmt: skip
    expected = view_of(installation, case.id)
    moved = view_of(installation, case.id, chosen=(existing(expected.model).id, 60))
    own = grid_of(installation.files.local(existing(moved.model).path))
    shutil.rmtree(installation.files.local(keys.DERIVED))
    installation.files.local(case.scan_path).write_bytes(b"no scan")
    scene = view_of(installation, case.id)
    assert scene.grid.matches(expected.grid, tolerance_mm=0)
    assert scene.orientation.codes == "LPS"
    assert report(scene) == report(expected)
    again = view_of(installation, case.id, chosen=(existing(scene.model).id, 60))
    assert again.model == moved.model
    path, before = (installation.files.local(existing(shown.model).path) for shown in (again, scene))
    assert grid_of(path).matches(own, tolerance_mm=0)
    assert read_mask(path, scene.grid).sum() > read_mask(before, scene.grid).sum()


def test_reference_lies_on_the_case_whatever_became_of_its_scan(installation, case, tmp_path):
    lesion = write_chest(tmp_path / "mask.nii")
    shutil.copy(installation.files.local(case.scan_path), tmp_path / "scan.nii.gz")
    installation.files.local(case.scan_path).unlink()
    with pytest.raises(ScanError):
        cases.add_reference(installation, case.id, tmp_path / "missing.nii")
    mask = cases.add_reference(installation, case.id, tmp_path / "mask.nii")
    assert mask.volume_ml > lesion.sum() * 0.05
    assert grid_of(installation.files.local(mask.path)).matches(grid_of(tmp_path / "scan.nii.gz"), tolerance_mm=0)


def test_cases_of_the_release_before_get_their_geometry_once(settings, before, opened, monkeypatch):
    home.open_installation(opened)
    storage.sweep(opened)
    for case_id in before:
        case = cases.get_case(opened, case_id)
        assert case.geometry == geometry_in(opened.files.local(case.scan_path))
        assert manifests.read_manifest(Case, opened.files.local(keys.case_manifest(case_id))) == case
        opened.files.local(case.scan_path).write_bytes(b"no scan")
        assert view_of(opened, case_id).grid.shape == SHAPE
    assert complete_geometries(opened) == 0


def test_case_of_the_release_before_gets_it_when_it_is_looked_at(before, opened):
    first, second = before
    assert cases.get_case(opened, first).geometry is None
    assert view_of(opened, first).grid.shape == SHAPE
    assert cases.get_case(opened, first).geometry is not None
    assert cases.get_case(opened, second).geometry is None


def removed(path):
    path.unlink()


def damaged(path):
    path.write_bytes(b"\x1f\x8b" + bytes(300))


def another_one(path):
    write_chest(path, "SPL")


@pytest.mark.parametrize("change", [removed, damaged, another_one])
def test_scan_that_is_lost_costs_nobody_the_start(before, opened, change):
    lost, good = before
    change(opened.files.local(f"scans/{lost}.nii.gz"))
    assert complete_geometries(opened) == 1
    assert {summary.case.id for summary in cases.list_cases(opened)} == {lost, good}
    assert [cases.get_case(opened, case_id).geometry is None for case_id in (lost, good)] == [True, False]
    with pytest.raises(ScanError):
        view_of(opened, lost)
    assert complete_geometries(opened) == 0


def test_geometry_that_the_database_does_not_take_is_used_all_the_same(before, opened, monkeypatch):
    def refuse(*_):
        raise StorageError("The disk is full.", "Make room.")

    monkeypatch.setattr(rows, "keep_geometry", refuse)
    case = cases.get_case(opened, before[0])
    assert Grid.of(geometry_of(opened, case)).to_ras().shape == SHAPE
    assert cases.get_case(opened, case.id).geometry is None


@pytest.mark.parametrize("is_older", [False, True])
def test_recovered_case_has_the_geometry_of_its_manifest_or_of_its_scan(settings, installation, case, is_older):
    known = cases.get_case(installation, case.id)
    marked = None if is_older else replace(existing(known.geometry), format="another", header="AAAA")
    manifests.keep_case(installation.files, replace(known, geometry=marked))
    with installation.database.begin() as session:
        rows.delete_case(session, case.id)
    recovery.recover(installation)
    back = cases.get_case(installation, case.id)
    assert back.geometry == (known.geometry if is_older else marked)
    assert back.name == known.name


def test_geometry_that_is_damaged_in_the_database_is_said_to_be(installation, case):
    with installation.database.begin() as session:
        session.connection().exec_driver_sql("UPDATE cases SET geometry = '{\"shape\": [1, 2]}'")
    with pytest.raises(StorageError, match="damaged"):
        cases.get_case(installation, case.id)
