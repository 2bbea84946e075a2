"""The tables. A change here needs a migration: `alembic revision --autogenerate -m "..."`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, relationship

from lungseg.decoding import Refusal, decode_value
from lungseg.errors import StorageError
from lungseg.records.masks import MaskKind
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import AFTER_ALL_DROPS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ID_LENGTH, WORD_LENGTH = 32, 16
"""Characters of a UUID in hex, and of a word of an enumeration."""

Record = TypeVar("Record", bound="DataclassInstance")
Processor = Callable[[Any], Any]
JsonColumn: TypeAlias = dict[str, Any]
"""A JSON object; `record_of` decodes it as soon as it is read."""


def damaged_value(reason: str) -> StorageError:
    """Make the error for a row that holds what no release of ours writes."""
    return StorageError(
        f"A value in the database is damaged ({reason}).",
        "Put a copy of the database in its place, or delete the case or run that can't be shown.",
    )


def columns_of(record: DataclassInstance) -> dict[str, Any]:
    """Return the fields of a record under their names, nested records as they are."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def record_of(kind: type[Record], row: Base, refuse: Refusal = damaged_value, **columns: Any) -> Record:
    """Turn a row, with some columns replaced, into its record; raises StorageError where a value is damaged."""
    names = [field.name for field in fields(kind) if field.name not in columns]
    return decode_value(kind, {name: getattr(row, name) for name in names} | columns, refuse)


def _checked(processor: Processor | None, reason: str) -> Processor | None:
    """Turn the errors of a database driver that can't read a value into one of ours."""
    if processor is None:
        return None

    def process(value: Any) -> Any:
        try:
            return processor(value)
        except (ValueError, TypeError, LookupError) as error:
            raise damaged_value(reason) from error

    return process


class Word(TypeDecorator[StrEnum]):
    """A word of an enumeration, stored as text."""

    impl = Enum
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        """Refuse words that the enumeration lacks."""
        return _checked(super().result_processor(dialect, coltype), "an unknown word")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, stored as UTC without a zone and read with it, on SQLite and PostgreSQL alike."""

    impl = DateTime
    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Processor | None:
        """Refuse texts that are no moment in time."""
        return _checked(super().result_processor(dialect, coltype), "no moment in time")

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Convert any zone to UTC."""
        return value and value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Add the zone."""
        return value and value.replace(tzinfo=UTC)


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    """Base of all tables; constraints have names, so that migrations can change them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        JsonColumn: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
        list[int]: JSON(none_as_null=True),
        list[float]: JSON(none_as_null=True),
        list[JsonColumn]: JSON(none_as_null=True),
        RunKind: Word(RunKind, native_enum=False, length=WORD_LENGTH),
        RunState: Word(RunState, native_enum=False, length=WORD_LENGTH),
        MaskKind: Word(MaskKind, native_enum=False, length=WORD_LENGTH),
    }


class InstallationRow(Base):
    """The one row, which names the home that the database belongs to; see `services.home`."""

    __tablename__ = "installation"

    number: Mapped[int] = mapped_column(primary_key=True, default=1)
    home_id: Mapped[str | None] = mapped_column(String(ID_LENGTH), default=None)


class CaseRow(Base):
    """A patient's scan; see `Case`.

    `patient`, `series_uid` and `study_date` repeat what the examination says, for those who search by it.
    """

    __tablename__ = "cases"

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    name: Mapped[str]
    scan_path: Mapped[str]
    scan_sha256: Mapped[str] = mapped_column(String(64))
    scan_bytes: Mapped[int] = mapped_column(BigInteger)
    shape: Mapped[list[int] | None]
    spacing_mm: Mapped[list[float] | None]
    orientation: Mapped[str | None] = mapped_column(String(3))
    is_demo: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(index=True)
    geometry: Mapped[JsonColumn | None] = mapped_column(default=None)
    original_path: Mapped[str | None] = mapped_column(default=None)
    examination: Mapped[JsonColumn | None] = mapped_column(default=None)
    findings: Mapped[list[JsonColumn]] = mapped_column(default_factory=list)
    patient: Mapped[str] = mapped_column(default="", index=True)
    series_uid: Mapped[str] = mapped_column(default="", index=True)
    study_date: Mapped[str] = mapped_column(default="")


class RunRow(Base):
    """An execution; see `Run`.

    `worker` names the place that executes it (host and home); at most one worker is alive there at a time. `attempts`
    counts the starts, and identifies a start together with the id. `crash_count` counts the processes that it lost in a
    row without getting anywhere. The waiting scan with the lowest `priority` is next.
    """

    __tablename__ = "runs"
    __table_args__ = (Index(None, "state", "queued_at"), Index(None, "case_id", "queued_at"))

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    kind: Mapped[RunKind]
    state: Mapped[RunState]
    case_id: Mapped[str | None] = mapped_column(ForeignKey("cases.id", ondelete="CASCADE"))
    configuration: Mapped[JsonColumn]
    checkpoint: Mapped[str | None]
    code_version: Mapped[str]
    queued_at: Mapped[datetime]
    checkpoint_sha256: Mapped[str | None] = mapped_column(String(64), default=None)
    device: Mapped[str | None] = mapped_column(default=None)
    seed: Mapped[int | None] = mapped_column(BigInteger, default=None)
    progress: Mapped[JsonColumn | None] = mapped_column(default=None)
    failure: Mapped[JsonColumn | None] = mapped_column(default=None)
    warnings: Mapped[list[str]] = mapped_column(default_factory=list)
    result: Mapped[JsonColumn] = mapped_column(default_factory=dict)
    attempts: Mapped[int] = mapped_column(default=0)
    stop_requested: Mapped[bool] = mapped_column(default=False)
    worker: Mapped[str | None] = mapped_column(default=None)
    started_at: Mapped[datetime | None] = mapped_column(default=None)
    finished_at: Mapped[datetime | None] = mapped_column(default=None)
    heartbeat_at: Mapped[datetime | None] = mapped_column(default=None)
    crash_count: Mapped[int] = mapped_column("losses", default=0)
    name: Mapped[str] = mapped_column(default="")
    tags: Mapped[list[str]] = mapped_column(default_factory=list)
    notes: Mapped[str] = mapped_column(default="")
    dataset: Mapped[str | None] = mapped_column(default=None)
    priority: Mapped[int] = mapped_column(default=AFTER_ALL_DROPS)


class EpochRow(Base):
    """An epoch of a training run; see `EpochRecord`."""

    __tablename__ = "epochs"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    train_loss: Mapped[float]
    validation_loss: Mapped[float | None]
    mean_dice: Mapped[float | None]
    learning_rate: Mapped[float]
    slices_per_s: Mapped[float]
    seconds: Mapped[float]
    memory_mb: Mapped[float]
    finished_at: Mapped[datetime]


class ScoreRow(Base):
    """The score of a case by the checkpoint of a run; see `CaseScore`. Its NaN is NULL here."""

    __tablename__ = "scores"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    case: Mapped[str] = mapped_column(primary_key=True)
    dice: Mapped[float | None]
    hd95_mm: Mapped[float | None]
    nsd_2mm: Mapped[float | None]
    reference_ml: Mapped[float | None]
    predicted_ml: Mapped[float | None]
    lesions_reference: Mapped[int]
    lesions_found: Mapped[int]
    false_lesions: Mapped[int]
    seconds: Mapped[float | None]
    doubtful_true: Mapped[int] = mapped_column(default=0, server_default="0")
    doubtful_false: Mapped[int] = mapped_column(default=0, server_default="0")


class DataSetRow(Base):
    """A registered data set; see `RegisteredDataSet`."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("folder"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    name: Mapped[str]
    folder: Mapped[str]
    registered_at: Mapped[datetime]
    run_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id", ondelete="SET NULL"))
    tumour_class: Mapped[str | None] = mapped_column(default=None)


class LesionRow(Base):
    """A connected component of a mask; see `Lesion`."""

    __tablename__ = "lesions"

    mask_id: Mapped[str] = mapped_column(ForeignKey("masks.id", ondelete="CASCADE"), primary_key=True, init=False)
    number: Mapped[int] = mapped_column(primary_key=True)
    volume_ml: Mapped[float]
    centre_mm: Mapped[list[float]]
    centre_index: Mapped[list[int]]
    extent_mm: Mapped[list[float]]
    first_slice: Mapped[int]
    last_slice: Mapped[int]
    probability: Mapped[float | None]
    is_doubtful: Mapped[bool] = mapped_column(default=False, server_default=false())


class MaskRow(Base):
    """A version of a mask of a case; see `Mask`."""

    __tablename__ = "masks"
    __table_args__ = (UniqueConstraint("case_id", "kind", "version"),)

    id: Mapped[str] = mapped_column(String(ID_LENGTH), primary_key=True)
    case_id: Mapped[str] = mapped_column(ForeignKey("cases.id", ondelete="CASCADE"))
    run_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id", ondelete="SET NULL"), index=True)
    kind: Mapped[MaskKind]
    version: Mapped[int]
    path: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    volume_ml: Mapped[float]
    slice_voxels: Mapped[list[int]]
    created_at: Mapped[datetime]
    lesions: Mapped[list[LesionRow]] = relationship(
        order_by=LesionRow.number, cascade="all, delete-orphan", passive_deletes=True, lazy="raise"
    )
