"""Masks and their lesions in the database."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select, tuple_
from sqlalchemy.orm import Session, selectinload

from lungseg.db.tables import LesionRow, MaskRow, RunRow, columns_of, damaged_value, record_of
from lungseg.decoding import decode_value
from lungseg.errors import NotFoundError
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.masks import Lesion, Mask, MaskKind


class PredictionTotals(NamedTuple):
    """Totals of the newest predicted mask of a case.

    Attributes:
        lesions: doubtful ones left out.
        volume_ml: of all of them together.
        largest_ml: None where there is no lesion.
        doubtful: number of doubtful lesions, which are not in the mask.
    """

    lesions: int
    volume_ml: float
    largest_ml: float | None
    doubtful: int


def next_version(session: Session, case_id: str, kind: MaskKind) -> int:
    """Return the version that the next mask of a kind gets; valid until the end of the writing transaction."""
    newest = select(func.max(MaskRow.version)).where(MaskRow.case_id == case_id, MaskRow.kind == kind)
    return (session.scalar(newest) or 0) + 1


def insert_mask(session: Session, mask: Mask) -> None:
    """Insert a new mask with its lesions."""
    columns = columns_of(mask)
    columns["lesions"] = [_row_of(lesion) for lesion in (*mask.lesions, *columns.pop("doubtful"))]
    session.add(MaskRow(**columns))
    session.flush()


def masks_of_case(session: Session, case_id: str) -> tuple[Mask, ...]:
    """Return all masks of a case with their lesions, newest first."""
    rows = session.scalars(
        select(MaskRow)
        .where(MaskRow.case_id == case_id)
        .order_by(MaskRow.created_at.desc(), MaskRow.version.desc())
        .options(selectinload(MaskRow.lesions))
    )
    return tuple(_mask_of(row) for row in rows)


def get_mask(session: Session, mask_id: str) -> Mask:
    """Return a mask with its lesions; raises NotFoundError where there is none of this id."""
    row = session.get(MaskRow, mask_id, options=[selectinload(MaskRow.lesions)])
    if row is None:
        raise NotFoundError(f"There is no mask {mask_id}.", "It was deleted with its case; open another one.")
    return _mask_of(row)


def all_mask_ids(session: Session) -> frozenset[str]:
    """Return the ids of all masks."""
    return frozenset(session.scalars(select(MaskRow.id)))


def referenced_case_ids(session: Session) -> frozenset[str]:
    """Return the ids of the cases that have a reference mask."""
    return frozenset(session.scalars(select(MaskRow.case_id).where(MaskRow.kind == MaskKind.REFERENCE).distinct()))


def prediction_totals(session: Session) -> dict[str, PredictionTotals]:
    """Return the totals of the newest prediction of each case that has one, by case id."""
    is_certain = LesionRow.is_doubtful.is_(False)
    rows = session.execute(
        select(
            MaskRow.case_id,
            func.count(LesionRow.number).filter(is_certain),
            MaskRow.volume_ml,
            func.max(LesionRow.volume_ml).filter(is_certain),
            func.count(LesionRow.number).filter(LesionRow.is_doubtful),
        )
        .where(_is_newest_prediction())
        .outerjoin(LesionRow, LesionRow.mask_id == MaskRow.id)
        .group_by(MaskRow.id, MaskRow.case_id, MaskRow.volume_ml)
    )
    return {
        case_id: PredictionTotals(lesions, volume_ml, largest_ml, doubtful)
        for case_id, lesions, volume_ml, largest_ml, doubtful in rows
    }


def prediction_findings(session: Session) -> dict[str, tuple[ScanFinding, ...]]:
    """Return the findings of the run of the newest prediction, by case id; old runs have only their warnings."""
    rows = session.execute(
        select(MaskRow.case_id, RunRow.result["findings"], RunRow.warnings)
        .where(_is_newest_prediction())
        .join(RunRow, RunRow.id == MaskRow.run_id)
    )
    return {case_id: _findings_of(findings, warnings) for case_id, findings, warnings in rows}


def _findings_of(findings: Any, warnings: Any) -> tuple[ScanFinding, ...]:
    texts = decode_value(tuple[str, ...], warnings or [], damaged_value)
    recorded = decode_value(tuple[ScanFinding, ...], findings or [], damaged_value)
    return recorded or tuple(ScanFinding("", ScanSeverity.WARNING, text) for text in texts)


def _is_newest_prediction() -> ColumnElement[bool]:
    is_prediction = MaskRow.kind == MaskKind.PREDICTION
    newest = select(MaskRow.case_id, func.max(MaskRow.version)).where(is_prediction).group_by(MaskRow.case_id)
    return is_prediction & tuple_(MaskRow.case_id, MaskRow.version).in_(newest)


def _row_of(lesion: Lesion) -> LesionRow:
    columns = columns_of(lesion)
    columns["first_slice"], columns["last_slice"] = columns.pop("slices")
    return LesionRow(**columns)


def _mask_of(row: MaskRow) -> Mask:
    lesions = [record_of(Lesion, lesion, slices=(lesion.first_slice, lesion.last_slice)) for lesion in row.lesions]
    certain = tuple(lesion for lesion in lesions if not lesion.is_doubtful)
    return record_of(Mask, row, lesions=certain, doubtful=tuple(lesion for lesion in lesions if lesion.is_doubtful))
