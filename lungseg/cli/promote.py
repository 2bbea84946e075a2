"""`lungseg promote`: which checkpoint segments; a run's checkpoint put in its place, and the way back."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from lungseg.cli.console import err, out, warn
from lungseg.config import Settings
from lungseg.errors import PromotionError

if TYPE_CHECKING:
    from lungseg.db import Database
    from lungseg.services.in_use import PromotionRecord


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
    from lungseg.services.installation import Installation

    settings = Settings.from_environment()
    if run is not None and again is not None:
        raise PromotionError("A run and --again were both given.", "Give one of the two.")
    if again is not None:
        from lungseg.services.in_use import use_again

        done = use_again(settings, again, comment=comment, by=_user())
        _said(settings, f"{done.name} is used again.")
    elif run is not None:
        with _database(settings) as database:
            if score:
                _score(settings, database, run, data)
                return
            from lungseg.services import promotion

            card = promotion.promote(Installation(settings, database), run, name=name, comment=comment, by=_user())
        _said(settings, f"{card.name} is in models/ and segments from the next scan on.")
    else:
        _list(settings)


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    from lungseg.db import open_database
    from lungseg.services.home import open_home

    open_home(settings)
    with closing(open_database(settings.database_url)) as database:
        yield database


def _score(settings: Settings, database: Database, run: str, data: Path | None) -> None:
    """Queue what a promotion of the run needs to know."""
    from lungseg.services.installation import Installation
    from lungseg.services.training import queue_both, queue_rival

    queued = (
        (queue_rival(Installation(settings, database), run),)
        if data is None
        else queue_both(Installation(settings, database), run, data)
    )
    for each in queued:
        err.print(Text(f"Run {each.id} waits for the worker: {each.name}"), soft_wrap=True)


def _said(settings: Settings, text: str) -> None:
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
    stations = in_use.history(settings)
    if stations:
        out.print(_table(stations))
    how = " as LUNGSEG_CHECKPOINT says" if settings.checkpoint else ""
    out.print(Text(f"{card.name} segments{how}, sha256 {card.sha256[:12]}."), soft_wrap=True)


def _table(stations: tuple[PromotionRecord, ...]) -> Table:
    table = Table("number", "checkpoint", "sha256", "since", "by", "comment")
    for station in stations:
        made = station.promotion
        gone = "" if station.is_there else " (files gone)"
        told = (made.at, made.by or "-", made.comment or "-") if made else ("before all promotions", "-", "-")
        table.add_row(*map(Text, (str(station.number), f"{station.name}{gone}", station.sha256[:12], *told)))
    return table
