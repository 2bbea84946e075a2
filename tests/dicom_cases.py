"""Cases that came as DICOM, taken in as an intake does, with a mask of the newest network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from lungseg.intake.survey import contents_of
from lungseg.intake.take import take
from lungseg.records.cases import Case
from lungseg.scans.formats import read_volume
from lungseg.services.cases import adopt
from lungseg.services.identity import rule_of
from lungseg.services.installation import Installation
from tests.delineations import inside, middle_of_grid
from tests.seeds import add_prediction


def add_dicom_case(installation: Installation, files: Sequence[Path], folder: Path) -> Case:
    """Take a series in; `folder` is for what lies there meanwhile."""
    limits = installation.settings.limits
    contents = contents_of({path: path.name for path in files}, limits=limits, ignored={})
    folder.mkdir()
    (offer,) = contents.survey.offers
    taken = take(contents, offer.key, folder, rule_of(installation), limits=limits)
    return adopt(installation, uuid4().hex, taken, name="From the PACS", may_be_twin=True)


def outline(installation: Installation, case: Case, rule=inside, **options) -> None:
    """Give a case the mask of what a rule calls inside, as a network's; `options` as in `add_prediction`."""
    grid = read_volume(installation.files.local(case.scan_path)).grid
    mask = rule(middle_of_grid(grid))
    add_prediction(installation.settings, installation.database, case, mask, **options)


def keeping_identity(installation: Installation) -> Installation:
    return replace(installation, settings=replace(installation.settings, identity="keep"))
