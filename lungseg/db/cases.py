"""Cases in the database."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session, defer

from lungseg.db.masks import damaged, prediction_findings, prediction_totals, referenced_case_ids
from lungseg.db.runs import latest_segment_runs
from lungseg.db.tables import CaseRow
from lungseg.decoding import Finite, Natural, decode_value, to_plain
from lungseg.errors import NotFoundError
from lungseg.records import Case, CaseSummary, ScanFinding, ScanGeometry, ScanSeverity, doubts_in, is_misread


def insert_case(session: Session, case: Case) -> None:
    """Keep a new case."""
    session.add(
        CaseRow(
            id=case.id,
            name=case.name,
            scan_path=case.scan_path,
            scan_sha256=case.scan_sha256,
            scan_bytes=case.scan_bytes,
            shape=case.shape and list(case.shape),
            spacing_mm=case.spacing_mm and list(case.spacing_mm),
            orientation=case.orientation,
            is_demo=case.is_demo,
            created_at=case.created_at,
            geometry=to_plain(case.geometry) if case.geometry else None,
        )
    )
    session.flush()


def get_case(session: Session, case_id: str) -> Case:
    """Return a case.

    Raises:
        NotFoundError: there is none of this id.
    """
    row = session.get(CaseRow, case_id)
    if row is None:
        raise no_such_case(case_id)
    geometry = decode_value(ScanGeometry, row.geometry, damaged) if row.geometry else None
    return replace(_case_of(row), geometry=geometry)


def twin_of(session: Session, sha256: str) -> Case | None:
    """Return the newest case whose scan has these very bytes, without its geometry; None where there is none."""
    newest = _cases().where(CaseRow.scan_sha256 == sha256).order_by(CaseRow.created_at.desc()).limit(1)
    row = session.scalar(newest)
    return _case_of(row) if row else None


def rename_case(session: Session, case_id: str, name: str) -> Case:
    """Change a case's display name.

    Raises:
        NotFoundError: there is none of this id.
    """
    session.execute(update(CaseRow).where(CaseRow.id == case_id).values(name=name))
    return get_case(session, case_id)


def keep_geometry(session: Session, case_id: str, geometry: ScanGeometry) -> Case:
    """Keep the geometry of a case's scan.

    Raises:
        NotFoundError: there is none of this id.
    """
    session.execute(update(CaseRow).where(CaseRow.id == case_id).values(geometry=to_plain(geometry)))
    return get_case(session, case_id)


def without_geometry(session: Session) -> tuple[Case, ...]:
    """Return the cases of earlier releases that have no geometry yet."""
    return tuple(_case_of(row) for row in session.scalars(_cases().where(CaseRow.geometry.is_(None))))


def delete_case(session: Session, case_id: str) -> None:
    """Forget a case with its runs, masks and lesions.

    Raises:
        NotFoundError: there is none of this id.
    """
    deleted = session.scalar(delete(CaseRow).where(CaseRow.id == case_id).returning(CaseRow.id))
    if deleted is None:
        raise no_such_case(case_id)


def all_case_ids(session: Session) -> frozenset[str]:
    """Return the ids of all cases."""
    return frozenset(session.scalars(select(CaseRow.id)))


def list_summaries(session: Session) -> tuple[CaseSummary, ...]:
    """Return all cases without their geometry, newest first, in as many queries for a thousand cases as for one."""
    latest = latest_segment_runs(session)
    totals = prediction_totals(session)
    findings = prediction_findings(session)
    referenced = referenced_case_ids(session)
    rows = session.scalars(_cases().order_by(CaseRow.created_at.desc(), CaseRow.id))
    return tuple(
        CaseSummary(
            case=_case_of(row),
            run=latest.get(row.id),
            lesions=totals[row.id].lesions if row.id in totals else None,
            volume_ml=totals[row.id].volume_ml if row.id in totals else None,
            largest_ml=totals[row.id].largest_ml if row.id in totals else None,
            has_reference=row.id in referenced,
            doubtful=totals[row.id].doubtful if row.id in totals else 0,
            doubts=doubts_in(findings.get(row.id, ())),
            warnings=_warnings_in(findings.get(row.id, ())),
            is_misread=is_misread(findings.get(row.id, ())),
        )
        for row in rows
    )


def _warnings_in(findings: tuple[ScanFinding, ...]) -> tuple[str, ...]:
    return tuple(each.text for each in findings if each.severity is ScanSeverity.WARNING)


def no_such_case(case_id: str) -> NotFoundError:
    """Say that a case is not there."""
    return NotFoundError(f"There is no case {case_id}.", "It was deleted, or never there: choose another one.")


def _cases() -> Select[CaseRow]:
    """Select cases without their geometry, which is longer than all the rest."""
    return select(CaseRow).options(defer(CaseRow.geometry))


def _case_of(row: CaseRow) -> Case:
    return Case(
        id=row.id,
        name=row.name,
        scan_path=row.scan_path,
        scan_sha256=row.scan_sha256,
        scan_bytes=row.scan_bytes,
        shape=decode_value(tuple[Natural, Natural, Natural], row.shape, damaged) if row.shape else None,
        spacing_mm=decode_value(tuple[Finite, Finite, Finite], row.spacing_mm, damaged) if row.spacing_mm else None,
        orientation=row.orientation,
        is_demo=row.is_demo,
        created_at=row.created_at,
    )
