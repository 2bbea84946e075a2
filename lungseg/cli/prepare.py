"""`lungseg prepare`: from a data set to its slice store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungseg.cli.console import err, log_shown, out, progress_bar
from lungseg.cli.lint import show_findings, show_ignored
from lungseg.cli.options import TumourClassOption
from lungseg.wording import counted


def prepare(
    data: Annotated[Path, typer.Argument(metavar="DATASET", help="Data set folder.", show_default=False)],
    store: Annotated[Path, typer.Option("--output", "-o", help="Folder of the store; brought up to date if there.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at once; default: by processors and memory.")
    ] = None,
    tumour_class: TumourClassOption = None,
) -> None:
    """Make the slice store of a data set; goes on where it ended, and makes again only what has changed."""
    from lungseg.dataset.contents import short
    from lungseg.dataset.layout import open_data_set
    from lungseg.dataset.lint import lint
    from lungseg.dataset.store import prepare as prepare_store

    data_set = open_data_set(data, tumour_class)
    show_ignored(data_set)
    with log_shown("lungseg.dataset"), progress_bar() as tell:
        made = prepare_store(data_set, store, workers=workers, on_progress=tell)
    slices = sum(len(case.slice_tumour_px) for case in made.cases)
    with_tumour = sum(px > 0 for case in made.cases for px in case.slice_tumour_px)
    left_out = sum(not facts.is_usable for facts in made.facts)
    out.print(
        f"{counted(len(made.cases), 'case')} with a mask ({counted(slices, 'slice')}, {with_tumour} with tumour), "
        f"{len(made.unlabelled)} without, {left_out} left out.",
        soft_wrap=True,
    )
    show_findings(lint(made.data_set, made.facts, likenesses=made.alike))
    known = f" Fingerprint of the data: {short(made.fingerprint)}." if made.fingerprint else ""
    err.print(f"{made.folder} is complete.{known}", style="dim", soft_wrap=True)
