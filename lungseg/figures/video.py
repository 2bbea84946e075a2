"""A film of a scan with its masks: one axial slice per frame, from the lowest to the highest, as films are hung.

Frames are palette indices, one byte per pixel: GIF takes them as they are, without dithering; MP4 (H.264, which every
browser and presentation program plays) gets their colours. A frame is encoded before the next one is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.errors import SetupError, StorageError
from lungseg.files.atomic import is_folder, replacing_path
from lungseg.scans.canvas import CanvasGeometry, to_display
from lungseg.scans.geometry import check_on_grid
from lungseg.scans.overlay import LUNG_WINDOW, MASK_RGB, REFERENCE_RGB, outline, windowed
from lungseg.scans.volume import Volume

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

FORMATS = {".mp4": "mp4", ".gif": "gif"}
SIDES = {"mp4": (512, 768), "gif": (384, 384)}
"""Smallest and largest side of the picture, pixels; a larger GIF is too large to send."""
FOOT = 40
"""Rows below the picture: the strip of slices, and the text under it."""
STRIP = (6, 18)
"""First and last row of the strip in the foot."""
GREYS = 252
WHITE, DIM, DARK, BLACK = GREYS - 1, 160, 42, 0
MASK_INK, REFERENCE_INK = GREYS, GREYS + 1
LINE = 2
"""Width of outlines, pixels: MP4 has one colour per two by two pixels."""
RIM = np.ones((3, 3), np.uint8)
"""Outlines run this far around a mask, so that a small one stays visible."""
NOTE = "Research use only"
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.45
COLOURS = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
"""Stands in the file, so that all players show the same colours."""

Advance = Callable[[int, int], None]
Canvas = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Film:
    """A scan with its masks, to be written as a film.

    Attributes:
        volume: the scan.
        mask: (I, J, K) bool on its grid.
        reference: reference mask on the same grid; None where there is none.
        window: centre and width, HU.
        fps: slices per second.
    """

    volume: Volume
    mask: NDArray[np.bool_]
    reference: NDArray[np.bool_] | None = None
    window: tuple[float, float] = LUNG_WINDOW
    fps: int = 12

    def __post_init__(self) -> None:
        """Refuse masks of another scan.

        Raises:
            GridMismatchError: a mask does not have the volume's shape.
        """
        for mask, _ in self._masks:
            check_on_grid(mask, self.volume.grid)

    def write(self, path: Path, *, on_progress: Advance | None = None) -> None:
        """Write the film, complete or not at all.

        Args:
            path: `.mp4` or `.gif`.
            on_progress: called with (slices done, slices in all).

        Raises:
            DiskFullError: there is no room.
            StorageError: the name has another ending, or the file can't be written.
            SetupError: the video library was built without H.264.
        """
        kind = film_format(path)
        if not is_folder(path.parent):
            raise StorageError(f"{path.name} can't be written: there is no such folder.", "Make its folder first.")
        with replacing_path(path) as partial:
            _encode(self._frames(kind, on_progress), partial, kind, self.fps)

    def frame(self, k: int, side: int) -> Canvas:
        """Draw axial slice k: (side + FOOT, side) palette indices."""
        grey = windowed(to_display(self.volume.hu[:, :, k]), self.window)
        place = CanvasGeometry.of(self.volume.grid, side)
        canvas = np.zeros((side + FOOT, side), dtype=np.uint8)
        canvas[:side] = _fit(grey, place)
        for mask, ink in reversed(self._masks):
            around = np.asarray(cv2.dilate(place.mask_to_canvas(to_display(mask[:, :, k])), RIM), dtype=np.uint8)
            canvas[:side] = outline(canvas[:side], around, (ink,), width=LINE)
        self._mark(canvas, k, side)
        self._strip(canvas[side:], k)
        return canvas

    @cached_property
    def _masks(self) -> tuple[tuple[NDArray[np.bool_], int], ...]:
        """Masks with their inks; the first lies on top."""
        masks = ((self.mask, MASK_INK), (self.reference, REFERENCE_INK))
        return tuple((mask, ink) for mask, ink in masks if mask is not None)

    @cached_property
    def _slices_with_mask(self) -> tuple[NDArray[np.bool_], ...]:
        """For each mask, which slices hold some of it."""
        return tuple(np.asarray(mask.any(axis=(0, 1))) for mask, _ in self._masks)

    def _frames(self, kind: str, on_progress: Advance | None) -> Iterator[Canvas]:
        low, high = SIDES[kind]
        side = int(np.clip(max(self.volume.grid.shape[:2]), low, high)) // 2 * 2
        count = self.volume.grid.shape[2]
        for k in range(count):
            yield self.frame(k, side)
            if on_progress:
                on_progress(k + 1, count)

    def _mark(self, canvas: Canvas, k: int, side: int) -> None:
        """Write number, place and window into the corners, the letters of the sides, and the masks in the slice."""
        count = self.volume.grid.shape[2]
        z_mm = float(self.volume.grid.mm_of((0, 0, k))[2])
        centre, width = self.window
        _write(canvas, f"{k + 1} / {count}", (8, 20), WHITE)
        _write(canvas, f"{'S' if z_mm >= 0 else 'I'} {abs(z_mm):.1f} mm", (8, 40), DIM)
        _write(canvas, f"C {centre:.0f}  W {width:.0f}", (side - 8, 20), DIM, align=1.0)
        for letter, (x, y) in {"R": (0.02, 0.5), "L": (0.98, 0.5), "A": (0.5, 0.04), "P": (0.5, 0.98)}.items():
            _write(canvas, letter, (round(x * side), round(y * side)), WHITE, align=x)
        names = {MASK_INK: "mask", REFERENCE_INK: "reference"}
        rows = iter(range(side - 12, 0, -22))
        for (_, ink), has_mask in zip(self._masks, self._slices_with_mask, strict=True):
            if has_mask[k]:
                y = next(rows)
                cv2.rectangle(canvas, (8, y - 10), (18, y), ink, cv2.FILLED)
                _write(canvas, names[ink], (26, y), WHITE)

    def _strip(self, foot: Canvas, k: int) -> None:
        """Draw all slices side by side: those with a mask in its colour, slice k as a white line; below, the note."""
        top, bottom = STRIP
        count, width = self.volume.grid.shape[2], foot.shape[1]
        foot[top:bottom] = DARK
        edges = np.linspace(0, width, count + 1).round().astype(int)
        lanes = np.linspace(top, bottom, len(self._masks) + 1).round().astype(int)
        for lane, ((_, ink), has_mask) in enumerate(zip(self._masks, self._slices_with_mask, strict=True)):
            for n in np.flatnonzero(has_mask):
                foot[lanes[lane] : lanes[lane + 1], edges[n] : edges[n + 1]] = ink
        middle = (edges[k] + edges[k + 1]) // 2
        foot[top - 3 : bottom + 3, max(0, middle - 1) : middle + 1] = WHITE
        _write(foot, NOTE, (width - 8, FOOT - 6), DIM, align=1.0)


def film_format(path: Path) -> str:
    """Return the container for the name of a film.

    Raises:
        StorageError: no film can be written under it.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise StorageError(f"The film would be called {path.name}.", "Give it a name that ends in .mp4 or .gif.")
    return kind


def palette() -> NDArray[np.uint8]:
    """Return the colours of the palette indices, (256, 3) RGB."""
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[:GREYS] = np.linspace(0, 255, GREYS).round().astype(np.uint8)[:, None]
    colours[MASK_INK], colours[REFERENCE_INK] = MASK_RGB, REFERENCE_RGB
    return colours


def _fit(grey: NDArray[np.uint8], place: CanvasGeometry) -> Canvas:
    """Resize a displayed slice into its place on the square canvas, as grey palette indices."""
    height, width = place.rows[1] - place.rows[0], place.columns[1] - place.columns[0]
    plane = grey.astype(np.float32) * ((GREYS - 1) / 255)
    if height > plane.shape[0]:
        plane = np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    return np.asarray(place.to_canvas(plane, fill=0.0).round().astype(np.uint8))


def _write(canvas: Canvas, text: str, point: tuple[int, int], ink: int, *, align: float = 0.0) -> None:
    """Write text over its shadow; `point` is on its base line, `align` the share of its width left of that point."""
    (width, _), _ = cv2.getTextSize(text, FONT, FONT_SCALE, 1)
    left, base = round(point[0] - align * width), point[1]
    for colour, shift in ((BLACK, 1), (ink, 0)):
        cv2.putText(canvas, text, (left + shift, base + shift), FONT, FONT_SCALE, colour, 1, cv2.LINE_AA)


def _encode(frames: Iterator[Canvas], path: Path, kind: str, fps: int) -> None:
    """Send frames to the encoder one by one."""
    import av  # noqa: PLC0415 - its libraries take 30 MB that most processes never need

    # PyAV takes a relative path that begins with a word and a colon for a protocol.
    options = {"movflags": "+faststart"} if kind == "mp4" else {}
    with av.open(path.absolute(), "w", format=kind, options=options) as container:
        stream = None
        for canvas in frames:
            stream = stream or _stream(container, kind, fps, canvas.shape)
            container.mux(stream.encode(_picture(canvas, kind)))
        if stream:
            container.mux(stream.encode())


def _stream(container: OutputContainer, kind: str, fps: int, shape: tuple[int, ...]) -> VideoStream:
    import av  # noqa: PLC0415 - as above

    codec, pixels, options = {
        "mp4": ("libx264", "yuv420p", {"crf": "20", "preset": "veryfast", "g": str(fps), **COLOURS}),
        "gif": ("gif", "pal8", {}),
    }[kind]
    height, width = shape
    try:
        stream = container.add_stream(codec, rate=fps, options=options, pix_fmt=pixels, height=height, width=width)
    except av.codec.codec.UnknownCodecError as error:
        raise SetupError(
            f"The video library has no {codec}.", "Install the wheel of `av`, or write a .gif instead."
        ) from error
    return cast("VideoStream", stream)


def _picture(canvas: Canvas, kind: str) -> VideoFrame:
    from av import VideoFrame  # noqa: PLC0415 - as above

    if kind == "gif":
        indexed: Any = (canvas, np.insert(palette(), 0, 255, axis=1))  # colours as ARGB; the stub knows no pair
        return VideoFrame.from_ndarray(indexed, format="pal8")
    picture = VideoFrame.from_ndarray(palette()[canvas], format="rgb24")
    return picture.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
