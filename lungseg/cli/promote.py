"""`lungseg promote`: which checkpoint segments; a run's checkpoint put in its place, and the way back."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from lungseg.cli.console import err, out, warn
from lungseg.cli.installation import opened_installation
from lungseg.config import Settings
from lungseg.errors import PromotionError

if TYPE_CHECKING:
    from lungseg.services.in_use import PromotionRecord
    from lungseg.services.installation import Installation


def promote(
    run: Annotated[str | None, typer.Argument(help="Id of the run whose checkpoint is to segment.")] = None,
    name: Annotated[str | None, typer.Option(help="What it is called in models/; default: its own name.")] = None,
    comment: Annotated[str, typer.Option(help="Why; needed where it is not better, beyond the noise.")] = "",
    again: Annotated[
        int | None, typer.Option(min=0, help="Use an earlier checkpoint again, by its number in the history.")
    ] = None,
    score: Annotated[
        bool, typer.Option("--score", help="Queue the scoring of the checkpoint in use on the cases of the run.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="With --score: score both checkpoints on the cases of this data set.")
    ] = None,
) -> None:
    """Let the checkpoint of a run segment, go back to an earlier one, or list what has segmented so far."""
    settings = Settings.from_environment()
    if run is not None and again is not None:
        raise PromotionError("A run and --again were both given.", "Give one of the two.")
    if again is not None:
        from lungseg.services.in_use import use_again

        promotion = use_again(settings, again, comment=comment, by=_user())
        _show_promoted(settings, f"{promotion.name} is used again.")
    elif run is not None:
        from lungseg.services.promotion import promote as promote_run

        with opened_installation(settings) as installation:
            if score:
                _score(installation, run, data)
                return
            card = promote_run(installation, run, name=name, comment=comment, by=_user())
        _show_promoted(settings, f"{card.name} is in models/ and segments from the next scan on.")
    else:
        _list(settings)


def _score(installation: Installation, run_id: str, data: Path | None) -> None:
    """Queue what a promotion of the run needs to know."""
    from lungseg.services.training import queue_candidate_and_incumbent, queue_incumbent

    queued = (
        (queue_incumbent(installation, run_id),)
        if data is None
        else queue_candidate_and_incumbent(installation, run_id, data)
    )
    for run in queued:
        err.print(Text(f"Run {run.id} waits for the worker: {run.name}"), soft_wrap=True)


def _show_promoted(settings: Settings, text: str) -> None:
    out.print(Text(text), soft_wrap=True)
    if settings.checkpoint:
        warn(f"LUNGSEG_CHECKPOINT names {settings.checkpoint}: that goes on segmenting until it is unset.")


def _user() -> str:
    """Name who runs the command, for the history; empty where the system does not know."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _list(settings: Settings) -> None:
    from lungseg.services import in_use

    card = in_use.card_in_use(settings)
    if records := in_use.history(settings):
        out.print(_table(records))
    reason = " as LUNGSEG_CHECKPOINT says" if settings.checkpoint else ""
    out.print(Text(f"{card.name} segments{reason}, sha256 {card.sha256[:12]}."), soft_wrap=True)


def _table(records: tuple[PromotionRecord, ...]) -> Table:
    table = Table("number", "checkpoint", "sha256", "since", "by", "comment")
    for record in records:
        promotion = record.promotion
        name = record.name if record.is_there else f"{record.name} (files gone)"
        origin = ("before all promotions", "-", "-")
        if promotion:
            origin = (promotion.at, promotion.by or "-", promotion.comment or "-")
        table.add_row(*map(Text, (str(record.number), name, record.sha256[:12], *origin)))
    return table
