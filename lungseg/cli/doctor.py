"""`lungseg doctor`: what is installed, what is missing, what to do."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from lungseg.cli.console import EXIT_INCOMPLETE, busy, out
from lungseg.config import Settings

STYLES = {"ok": "green", "warning": "yellow", "missing": "bold red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Examine the installation; exit code 1 if something is missing that the product needs."""
    from lungseg.services.doctor import State, check_installation

    with busy("examining"):
        findings = check_installation(Settings.from_environment())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        table = Table("part", "state", "found", "what to do")
        for finding in findings:
            state = Text(finding.state, style=STYLES[finding.state])
            table.add_row(finding.part, state, Text(finding.found), Text(finding.remedy))
        out.print(table)
    if any(finding.state is State.MISSING for finding in findings):
        raise typer.Exit(EXIT_INCOMPLETE)
