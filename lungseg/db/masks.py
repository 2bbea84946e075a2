"""Masks and their lesions in the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Subquery, func, select
from sqlalchemy.orm import Session, selectinload

from lungseg.db.tables import LesionRow, MaskRow, RunRow
from lungseg.decoding import Natural, decode_value
from lungseg.errors import NotFoundError, StorageError
from lungseg.records import Lesion, Mask, MaskKind, ScanFinding, ScanSeverity


@dataclass(frozen=True, slots=True)
class PredictionTotals:
    """What the newest predicted mask of a case adds up to; `largest_ml` is None where it has no lesion.

    Doubtful lesions, which are not in the mask, are counted by themselves.
    """

    lesions: int
    volume_ml: float
    largest_ml: float | None
    doubtful: int


def next_version(session: Session, case_id: str, kind: MaskKind) -> int:
    """Return the version that the next mask of a kind will have; true until the end of the writing transaction."""
    newest = select(func.max(MaskRow.version)).where(MaskRow.case_id == case_id, MaskRow.kind == kind)
    return (session.scalar(newest) or 0) + 1


def insert_mask(session: Session, mask: Mask) -> None:
    """Keep a new mask with its lesions."""
    session.add(
        MaskRow(
            id=mask.id,
            case_id=mask.case_id,
            run_id=mask.run_id,
            kind=mask.kind,
            version=mask.version,
            path=mask.path,
            sha256=mask.sha256,
            volume_ml=mask.volume_ml,
            slice_voxels=list(mask.slice_voxels),
            created_at=mask.created_at,
            lesions=[_row_of(lesion) for lesion in (*mask.lesions, *mask.doubtful)],
        )
    )
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
    """Return a mask with its lesions.

    Raises:
        NotFoundError: there is none of this id.
    """
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
    newest = _newest_predictions()
    is_certain = LesionRow.is_doubtful.is_(False)
    rows = session.execute(
        select(
            MaskRow.case_id,
            func.count(LesionRow.number).filter(is_certain),
            MaskRow.volume_ml,
            func.max(LesionRow.volume_ml).filter(is_certain),
            func.count(LesionRow.number).filter(LesionRow.is_doubtful),
        )
        .join(newest, (newest.c.case_id == MaskRow.case_id) & (newest.c.version == MaskRow.version))
        .where(MaskRow.kind == MaskKind.PREDICTION)
        .outerjoin(LesionRow, LesionRow.mask_id == MaskRow.id)
        .group_by(MaskRow.id, MaskRow.case_id, MaskRow.volume_ml)
    )
    return {
        case_id: PredictionTotals(lesions, volume, largest, doubtful)
        for case_id, lesions, volume, largest, doubtful in rows
    }


def prediction_findings(session: Session) -> dict[str, tuple[ScanFinding, ...]]:
    """Return what the run of the newest prediction noticed of the scan, by case id; of old runs, their warnings."""
    newest = _newest_predictions()
    rows = session.execute(
        select(MaskRow.case_id, RunRow.result["findings"], RunRow.warnings)
        .join(newest, (newest.c.case_id == MaskRow.case_id) & (newest.c.version == MaskRow.version))
        .where(MaskRow.kind == MaskKind.PREDICTION)
        .join(RunRow, RunRow.id == MaskRow.run_id)
    )
    return {case_id: _findings_of(findings, warnings) for case_id, findings, warnings in rows}


def _findings_of(findings: Any, warnings: Any) -> tuple[ScanFinding, ...]:
    texts = decode_value(tuple[str, ...], warnings or [], damaged)
    known = decode_value(tuple[ScanFinding, ...], findings or [], damaged)
    return known or tuple(ScanFinding("", ScanSeverity.WARNING, text) for text in texts)


def _newest_predictions() -> Subquery:
    return (
        select(MaskRow.case_id, func.max(MaskRow.version).label("version"))
        .where(MaskRow.kind == MaskKind.PREDICTION)
        .group_by(MaskRow.case_id)
        .subquery()
    )


def _row_of(lesion: Lesion) -> LesionRow:
    return LesionRow(
        number=lesion.number,
        volume_ml=lesion.volume_ml,
        centre_mm=list(lesion.centre_mm),
        centre_index=list(lesion.centre_index),
        extent_mm=list(lesion.extent_mm),
        first_slice=lesion.slices[0],
        last_slice=lesion.slices[1],
        probability=lesion.probability,
        is_doubtful=lesion.is_doubtful,
    )


def _mask_of(row: MaskRow) -> Mask:
    lesions = tuple(_lesion_of(lesion) for lesion in row.lesions)
    return Mask(
        id=row.id,
        case_id=row.case_id,
        run_id=row.run_id,
        kind=row.kind,
        version=row.version,
        path=row.path,
        sha256=row.sha256,
        volume_ml=row.volume_ml,
        slice_voxels=decode_value(tuple[Natural, ...], row.slice_voxels, damaged),
        created_at=row.created_at,
        lesions=tuple(lesion for lesion in lesions if not lesion.is_doubtful),
        doubtful=tuple(lesion for lesion in lesions if lesion.is_doubtful),
    )


def _lesion_of(row: LesionRow) -> Lesion:
    values = {
        "number": row.number,
        "volume_ml": row.volume_ml,
        "centre_mm": row.centre_mm,
        "centre_index": row.centre_index,
        "extent_mm": row.extent_mm,
        "slices": (row.first_slice, row.last_slice),
        "probability": row.probability,
        "is_doubtful": row.is_doubtful,
    }
    return decode_value(Lesion, values, damaged)


def damaged(reason: str) -> StorageError:
    """Say that a record can't be read."""
    return StorageError(f"The record of a case is damaged ({reason}).", "Restore the database from a copy.")
