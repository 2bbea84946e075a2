"""A CT scan in memory: Hounsfield units (I, J, K) toward Right, Anterior, Superior (RAS+), and where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import GridMismatchError
from lungseg.scans.geometry import Grid, check_on_grid


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A CT scan: Hounsfield units on an RAS+ grid.

    Attributes:
        hu: (I, J, K) int16 array toward Right, Anterior, Superior, in HU.
        grid: its RAS+ grid.
    """

    hu: NDArray[np.int16]
    grid: Grid

    def __post_init__(self) -> None:
        """Refuse an array that does not lie on its grid.

        Raises:
            GridMismatchError: shapes differ, or the grid is not RAS+.
        """
        check_on_grid(self.hu, self.grid)
        if self.grid.orientation.codes != "RAS":
            raise GridMismatchError(
                f"The grid is oriented {self.grid.orientation.codes}.", "Turn it to RAS with Grid.to_ras first."
            )
