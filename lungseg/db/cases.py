"""Cases in the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session, defer

from lungseg.db.masks import prediction_findings, prediction_totals, referenced_case_ids
from lungseg.db.runs import latest_segment_runs
from lungseg.db.tables import CaseRow, columns_of, record_of
from lungseg.decoding import to_plain
from lungseg.errors import NotFoundError
from lungseg.records.cases import Case, CaseSummary
from lungseg.records.examinations import Examination
from lungseg.records.findings import ScanFinding, ScanSeverity, doubts_in, is_misread, with_later
from lungseg.records.geometry import ScanGeometry


def insert_case(session: Session, case: Case) -> None:
    """Insert a new case."""
    examination = case.examination or Examination()
    columns = columns_of(case) | {
        "geometry": to_plain(case.geometry) if case.geometry else None,
        "examination": to_plain(case.examination) if case.examination else None,
        "findings": to_plain(case.findings),
        "patient": examination.patient,
        "series_uid": examination.series_uid,
        "study_date": examination.study_date,
    }
    session.add(CaseRow(**columns))
    session.flush()


def get_case(session: Session, case_id: str) -> Case:
    """Return a case; raises NotFoundError where there is none of this id."""
    row = session.get(CaseRow, case_id)
    if row is None:
        raise _no_such_case(case_id)
    return record_of(Case, row, geometry=row.geometry or None)


def twin_of(session: Session, sha256: str, series_uid: str = "") -> Case | None:
    """Return the newest case whose scan has exactly these bytes, and is of this series where one is named.

    It comes without its geometry; None where there is none.
    """
    alike = _cases().where(CaseRow.scan_sha256 == sha256).order_by(CaseRow.created_at.desc()).limit(1)
    row = session.scalar(alike.where(CaseRow.series_uid == series_uid) if series_uid else alike)
    return record_of(Case, row, geometry=None) if row else None


def cases_of_series(session: Session, series_uid: str) -> tuple[Case, ...]:
    """Return the cases of a series (`Examination.series_uid`), oldest first, without their geometry."""
    rows = session.scalars(_cases().where(CaseRow.series_uid == series_uid).order_by(CaseRow.created_at, CaseRow.id))
    return tuple(record_of(Case, row, geometry=None) for row in rows)


def keep_findings(session: Session, case_id: str, findings: Sequence[ScanFinding]) -> None:
    """Store what was noticed of the scan of a case."""
    session.execute(update(CaseRow).where(CaseRow.id == case_id).values(findings=to_plain(tuple(findings))))


def rename_case(session: Session, case_id: str, name: str) -> Case:
    """Change a case's display name; raises as `get_case`."""
    session.execute(update(CaseRow).where(CaseRow.id == case_id).values(name=name))
    return get_case(session, case_id)


def keep_geometry(session: Session, case_id: str, geometry: ScanGeometry) -> Case:
    """Store the geometry of a case's scan; raises as `get_case`."""
    session.execute(update(CaseRow).where(CaseRow.id == case_id).values(geometry=to_plain(geometry)))
    return get_case(session, case_id)


def without_geometry(session: Session) -> tuple[Case, ...]:
    """Return the cases of earlier releases that have no geometry yet."""
    rows = session.scalars(_cases().where(CaseRow.geometry.is_(None)))
    return tuple(record_of(Case, row, geometry=None) for row in rows)


def delete_case(session: Session, case_id: str) -> None:
    """Delete a case with its runs, masks and lesions; raises as `get_case`."""
    if session.scalar(delete(CaseRow).where(CaseRow.id == case_id).returning(CaseRow.id)) is None:
        raise _no_such_case(case_id)


def all_case_ids(session: Session) -> frozenset[str]:
    """Return the ids of all cases."""
    return frozenset(session.scalars(select(CaseRow.id)))


def list_summaries(session: Session) -> tuple[CaseSummary, ...]:
    """Return all cases without their geometry, newest first; the number of queries does not grow with the cases."""
    latest = latest_segment_runs(session)
    totals = prediction_totals(session)
    all_findings = prediction_findings(session)
    case_ids_with_reference = referenced_case_ids(session)
    summaries = []
    for row in session.scalars(_cases().order_by(CaseRow.created_at.desc(), CaseRow.id)):
        case, prediction = record_of(Case, row, geometry=None), totals.get(row.id)
        findings = with_later(all_findings.get(row.id, ()), case.findings)
        summaries.append(
            CaseSummary(
                case=case,
                run=latest.get(row.id),
                lesions=prediction.lesions if prediction else None,
                volume_ml=prediction.volume_ml if prediction else None,
                largest_ml=prediction.largest_ml if prediction else None,
                has_reference=row.id in case_ids_with_reference,
                doubtful=prediction.doubtful if prediction else 0,
                doubts=doubts_in(findings),
                warnings=tuple(finding.text for finding in findings if finding.severity is ScanSeverity.WARNING),
                is_misread=is_misread(findings),
            )
        )
    return tuple(summaries)


def _no_such_case(case_id: str) -> NotFoundError:
    return NotFoundError(f"There is no case {case_id}.", "It was deleted, or never there: choose another one.")


def _cases() -> Select[CaseRow]:
    """Select cases without their geometry, which is longer than all other columns."""
    return select(CaseRow).options(defer(CaseRow.geometry))
