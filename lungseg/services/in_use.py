"""Which checkpoint segments where nobody names another: the setting's, else the one promoted last, else the shipped.

Promotions stand in one file of the home, oldest first, and are never changed: going back to an earlier checkpoint is
one more of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from lungseg.config import SHIPPED_CHECKPOINT, Settings
from lungseg.decoding import decode_file, encode
from lungseg.errors import CheckpointError, PromotionError, StorageError
from lungseg.files import atomic, keys
from lungseg.segmentation.card import ModelCard, check_pair, find_weights, read_card, weights_in
from lungseg.services.file_store import files_of

ARCHIVE = "archive"
"""Folder in `models/` where checkpoints lie that were replaced."""


@dataclass(frozen=True, slots=True)
class Promotion:
    """How a checkpoint came to segment where nobody names another.

    Attributes:
        at: when, as ISO 8601 in UTC.
        by: who promoted it; empty where nobody gave a name.
        name: of the checkpoint in `models/`.
        sha256: of its weights.
        before: name of the checkpoint that segmented until then; empty where there was none.
        before_sha256: of its weights.
        comment: why.
        verdict: how it fared against the one before, in a sentence.
        run: id of the run that made it; empty where an earlier checkpoint is used again.
    """

    at: str
    by: str
    name: str
    sha256: str
    before: str
    before_sha256: str
    comment: str
    verdict: str
    run: str = ""

    @classmethod
    def of(
        cls, card: ModelCard, before: ModelCard | None, *, comment: str, by: str, verdict: str, run: str = ""
    ) -> Promotion:
        """Make the promotion of a checkpoint that takes the place of another now."""
        return cls(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            by=by.strip(),
            name=card.name,
            sha256=card.sha256,
            before=before.name if before else "",
            before_sha256=before.sha256 if before else "",
            comment=comment,
            verdict=verdict,
            run=run,
        )


def promotions(settings: Settings) -> tuple[Promotion, ...]:
    """Return all promotions of the installation, oldest first.

    Raises:
        StorageError: their file is damaged.
    """
    path = files_of(settings).local(keys.PROMOTIONS)
    return decode_file(tuple[Promotion, ...], path, _damaged) if atomic.is_file(path) else ()


def keep_promotion(settings: Settings, promotion: Promotion) -> None:
    """Write a promotion down: its checkpoint segments from the next run on.

    Raises:
        StorageError: the file is damaged or can't be written.
    """
    path = files_of(settings).local(keys.PROMOTIONS)
    with FileLock(f"{path}.lock"):
        atomic.write_bytes(path, encode((*promotions(settings), promotion)))


def name_in_use(settings: Settings) -> str:
    """Name the checkpoint that segments where nobody names another, as `segmentation.card.find_weights` takes it.

    Raises:
        CheckpointError: the one promoted last is nowhere in `models/`.
        StorageError: the file of promotions is damaged.
    """
    if settings.checkpoint:
        return settings.checkpoint
    promoted = promotions(settings)
    if not promoted:
        return SHIPPED_CHECKPOINT
    latest = promoted[-1]
    weights = find_promoted(settings, latest.sha256, latest.name)
    if weights is None:
        raise CheckpointError(
            f"The checkpoint {latest.name}, which was promoted last, is not in models/ any more.",
            "Put it back, or use an earlier one again: on the page Checkpoint, or by `lungseg promote --again`.",
        )
    return weights.stem if weights in weights_in(settings.models) else str(weights)


def weights_in_use(settings: Settings) -> Path:
    """Return the weights of `name_in_use`; raises as that does, and CheckpointError where they are missing."""
    return find_weights(name_in_use(settings), settings.models)


def card_in_use(settings: Settings) -> ModelCard:
    """Return the card of `weights_in_use`; raises as that does, and CheckpointError where the card can't be read."""
    return read_card(weights_in_use(settings), to_segment=True)


def read_incumbent(settings: Settings) -> ModelCard | None:
    """Return `card_in_use`, with which candidates are compared; None where there is none to be read.

    Raises:
        StorageError: the file of promotions is damaged.
    """
    try:
        return card_in_use(settings)
    except CheckpointError:
        return None


def find_promoted(settings: Settings, sha256: str, name: str = "") -> Path | None:
    """Find weights in `models/` or its archive by the sha256 on their card; of several, those with this name.

    None where they are gone.
    """
    archived = sorted((settings.models / ARCHIVE).glob("*.safetensors"))
    for weights in sorted((*weights_in(settings.models), *archived), key=lambda path: path.stem != name):
        try:
            if read_card(weights, to_segment=True).sha256 == sha256:
                return weights
        except CheckpointError:
            continue
    return None


@dataclass(frozen=True, slots=True)
class PromotionRecord:
    """A checkpoint of the history, with the name that it had then.

    Attributes:
        number: 0 for the one that segmented before the first promotion, then counting on.
        name: in `models/`.
        sha256: of its weights.
        promotion: None for number 0.
        is_there: whether its weights are still in `models/` or its archive.
        is_last: whether it segments now, as far as no setting names another.
    """

    number: int
    name: str
    sha256: str
    promotion: Promotion | None
    is_there: bool
    is_last: bool


def history(settings: Settings) -> tuple[PromotionRecord, ...]:
    """Return which checkpoints have segmented, oldest first; empty where nothing was ever promoted.

    Raises:
        StorageError: the record is damaged.
    """
    promoted = promotions(settings)
    if not promoted:
        return ()
    first = (promoted[0].before, promoted[0].before_sha256, None)
    return tuple(
        PromotionRecord(
            number, name, sha256, promotion, find_promoted(settings, sha256) is not None, number == len(promoted)
        )
        for number, (name, sha256, promotion) in enumerate([first, *((p.name, p.sha256, p) for p in promoted)])
        if sha256
    )


def use_again(settings: Settings, number: int, *, comment: str = "", by: str = "") -> Promotion:
    """Let an earlier checkpoint, by its number in `history`, segment again; `comment` says why, `by` who wants it.

    Raises:
        PromotionError: there is no such number, or it is in use already.
        CheckpointError: its weights are gone or damaged.
        StorageError: the record is damaged or can't be written.
    """
    records = {record.number: record for record in history(settings)}
    record = records.get(number)
    if record is None:
        raise PromotionError(
            f"The history has no number {number}.",
            f"Give one of {', '.join(map(str, records))}." if records else "Promote a checkpoint first.",
        )
    incumbent = read_incumbent(replace(settings, checkpoint=None))  # a setting that names another may be gone tomorrow
    weights = find_promoted(settings, record.sha256)
    if weights is None:
        raise CheckpointError(
            f"The weights of {record.name} are neither in models/ nor in its archive.", "Put both of its files back."
        )
    if incumbent and incumbent.sha256 == record.sha256:
        raise PromotionError(f"{record.name} is in use already.", "There is nothing to do.")
    card = read_card(weights, to_segment=True)
    check_pair(weights, card)
    promotion = Promotion.of(
        replace(card, name=record.name),
        incumbent,
        comment=comment.strip(),
        by=by,
        verdict=f"Number {number} is used again.",
    )
    keep_promotion(settings, promotion)
    return promotion


def _damaged(reason: str) -> StorageError:
    return StorageError(
        f"{keys.PROMOTIONS} can't be read ({reason}), so nobody can tell which checkpoint segments.",
        "Put a copy in its place; or remove it: the shipped checkpoint segments then.",
    )
