"""`lungseg prepare`: from a data set to its slice store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungseg.cli.console import err, log_shown, out, progress_bar
from lungseg.cli.lint import show_findings, show_ignored
from lungseg.cli.options import TumourClassOption, WorkersOption
from lungseg.wording import counted


def prepare(
    data: Annotated[Path, typer.Argument(metavar="DATASET", help="Data set folder.", show_default=False)],
    store: Annotated[Path, typer.Option("--output", "-o", help="Folder of the store; brought up to date if there.")],
    workers: WorkersOption = None,
    tumour_class: TumourClassOption = None,
) -> None:
    """Make the slice store of a data set; goes on where it ended, and makes again only what has changed."""
    from lungseg.dataset.layout import open_data_set
    from lungseg.dataset.lint import lint
    from lungseg.dataset.store import prepare as prepare_store

    data_set = open_data_set(data, tumour_class)
    show_ignored(data_set)
    with log_shown("lungseg.dataset"), progress_bar() as tell:
        slice_store = prepare_store(data_set, store, workers=workers, on_progress=tell)
    tumour_px = [px for case in slice_store.cases for px in case.slice_tumour_px]
    left_out = sum(not facts.is_usable for facts in slice_store.facts)
    out.print(
        f"{counted(len(slice_store.cases), 'case')} with a mask ({counted(len(tumour_px), 'slice')}, "
        f"{sum(px > 0 for px in tumour_px)} with tumour), {len(slice_store.unlabelled)} without, {left_out} left out.",
        soft_wrap=True,
    )
    show_findings(lint(slice_store.data_set, slice_store.facts, likenesses=slice_store.alike))
    fingerprint = f" Fingerprint of the data: {slice_store.fingerprint[:8]}." if slice_store.fingerprint else ""
    err.print(f"{slice_store.folder} is complete.{fingerprint}", style="dim", soft_wrap=True)
