"""The slice viewer: one picture per slice; its slider works in the browser alone."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.graph_objects import Figure

from lungseg.figures.style import INK
from lungseg.scans.canvas import CanvasGeometry, to_display
from lungseg.scans.overlay import MASK_RGB, REFERENCE_RGB, outline, windowed
from lungseg.scans.volume import Volume

SIDE_PX = 448
JPEG = (
    cv2.IMWRITE_JPEG_QUALITY,
    82,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,  # else colours of thin outlines fade
)
FIGURE_PX = 640


@dataclass(frozen=True, slots=True, eq=False)
class GreySlices:
    """The axial slices of a scan as pictures without masks: they take longest to draw, and no mask changes them.

    Attributes:
        pictures: (K, SIDE_PX, SIDE_PX) uint8, as films are hung.
        frame: place of a slice on its picture.
    """

    pictures: NDArray[np.uint8]
    frame: CanvasGeometry

    @classmethod
    def of(cls, volume: Volume, window: tuple[float, float]) -> GreySlices:
        """Draw the slices of a volume in a window (centre and width, HU)."""
        frame = CanvasGeometry.of(volume.grid, SIDE_PX)
        pictures = np.empty((volume.grid.shape[2], SIDE_PX, SIDE_PX), dtype=np.uint8)
        for k in range(len(pictures)):
            pictures[k] = frame.to_canvas(windowed(to_display(volume.hu[:, :, k]), window).astype(np.float32), fill=0.0)
        return cls(pictures, frame)


def slice_viewer(
    grey: GreySlices, model: NDArray[np.bool_] | None, reference: NDArray[np.bool_] | None, *, start: int
) -> Figure:
    """Draw the axial slices as frames of one figure; its slider works in the browser alone.

    Args:
        grey: the slices of the scan.
        model: (I, J, K) mask by the network on the volume's grid, or None.
        reference: (I, J, K) reference mask, or None.
        start: slice at the beginning.

    Returns:
        A figure with one picture and K frames; slices are counted from 1, inferior first, as everywhere in the pages.
    """
    frames = [
        go.Frame(data=[go.Image(source=source, hoverinfo="skip")], name=str(k + 1))
        for k, source in enumerate(_pictures(grey, model, reference))
    ]
    figure = Figure(data=frames[start].data, frames=frames)
    figure.update_layout(
        height=FIGURE_PX,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        paper_bgcolor="#000000",
        plot_bgcolor="#000000",
        sliders=[_slider(len(frames), start)],
    )
    for text, x, y in (("R", 0.0, 0.5), ("L", 1.0, 0.5), ("A", 0.5, 1.0), ("P", 0.5, 0.0)):
        font = {"size": 14, "color": INK}
        figure.add_annotation(text=text, x=x, y=y, xref="paper", yref="paper", showarrow=False, font=font)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def _pictures(grey: GreySlices, model: NDArray[np.bool_] | None, reference: NDArray[np.bool_] | None) -> Iterator[str]:
    """Yield each axial slice with its outlines as a JPEG in a data address, as films are hung."""
    for k, slice_picture in enumerate(grey.pictures):
        picture = np.repeat(slice_picture[..., None], 3, axis=2)
        for mask, colour in ((reference, REFERENCE_RGB), (model, MASK_RGB)):
            if mask is not None and mask[:, :, k].any():
                picture = outline(picture, grey.frame.mask_to_canvas(to_display(mask[:, :, k])), colour)
        encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), JPEG)[1]
        yield "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def _slider(count: int, start: int) -> dict[str, object]:
    immediate = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    return {
        "active": start,
        "currentvalue": {"prefix": "Slice ", "suffix": f" / {count}", "font": {"size": 13, "color": INK}},
        "pad": {"t": 8, "b": 8, "l": 12, "r": 12},
        "steps": [{"method": "animate", "label": str(k + 1), "args": [[str(k + 1)], immediate]} for k in range(count)],
        "bgcolor": "#2d3640",
        "borderwidth": 0,
        "ticklen": 0,
        "minorticklen": 0,
        "font": {"color": "rgba(0, 0, 0, 0)", "size": 1},
    }
