"""What commands open of an installation: its database, and a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from lungseg.config import Device, Settings

if TYPE_CHECKING:
    from lungseg.segmentation.segmenter import Segmenter
    from lungseg.services.installation import Installation


@contextmanager
def opened_installation(settings: Settings) -> Iterator[Installation]:
    """Open the home of an installation and its database for the block.

    Raises:
        StorageError: one of the two can't be used.
    """
    from lungseg.db import open_database
    from lungseg.services.home import open_home
    from lungseg.services.installation import Installation

    open_home(settings)
    with closing(open_database(settings.database_url)) as database:
        yield Installation(settings, database)


def load_segmenter(checkpoint: str | None, device: Device | None) -> Segmenter:
    """Load the checkpoint that an option names, else the one in use, on the device of the option or of the settings.

    Raises:
        CheckpointError: it is missing or damaged, or the device is not there.
    """
    from lungseg.segmentation.segmenter import Segmenter
    from lungseg.services.in_use import name_in_use

    settings = Settings.from_environment()
    return Segmenter.load(checkpoint or name_in_use(settings), models=settings.models, device=device or settings.device)
