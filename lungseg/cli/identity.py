"""`lungseg identity`: what leads from a case back to its patient, for whoever may read the installation's files."""

from __future__ import annotations

from typing import Annotated

import typer

from lungseg.cli.installation import opened_installation
from lungseg.config import Settings


def identity(
    case: Annotated[str, typer.Argument(help="Id of the case, at the end of its viewer's address.")],
) -> None:
    """Print patient, study and UIDs of a case as they were before identity was removed, as JSON."""
    from lungseg.decoding import encode
    from lungseg.services.identity import entry_of

    with opened_installation(Settings.from_environment()) as installation:
        typer.echo(encode(entry_of(installation, case)).decode(), nl=False)
