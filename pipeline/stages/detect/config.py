"""Settings of the detect stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from pipeline.config import Settings
from pipeline.imaging.image_io import MAX_PIXELS

if TYPE_CHECKING:
    pass


__all__ = ["DONE", "NAME", "DetectConfig"]

NAME: Final = "detect"


DONE, REJECTED = "done", "rejected"


class DetectConfig(Settings):
    """How photos are read, and what is kept of what is found in them.

    Attributes:
        datasets: of a work folder, only these; all by default.
        min_score: least score of a detection; the bundle's by default, as for the next two.
        nms_iou: of two detections of a class that overlap by more, the better one stays.
        max_detections: most detections of a photo, or of each tile.
        threshold: `selected` marks scores from here on; by default what the bundle's operating point chooses, where
            `evaluate` has left one, and in a work folder's own photos, which that is fitted to, .5.
        tile: look at large photos in overlapping tiles too, for objects of a few pixels; several times the work.
        tile_levels: so many times tiles are made half as large: 5 tiles in all with one, 21 with two.
        tile_overlap: share of a tile's side that its neighbour sees too.
        max_pixels: larger photos are rejected.
        downscale_on_read: let JPEG files be unpacked smaller where that is enough for the network's input.
        bfloat16: multiply in half the bits; by default where the processor or the GPU does that fast.
        device: cpu, cuda or auto.
        batch: photos or tiles at once; by default what is fastest.
        reader_threads: threads that read and decode for each shard that is worked on; by default two, for a GPU its share of
            the cores.
    """

    datasets: tuple[str, ...] = ()
    min_score: float | None = Field(default=None, ge=0, le=1)
    nms_iou: float | None = Field(default=None, ge=0, le=1)
    max_detections: int | None = Field(default=None, ge=1)
    threshold: float | None = Field(default=None, ge=0, le=1)
    tile: bool = False
    tile_levels: int = Field(default=2, ge=1)
    tile_overlap: float = Field(default=0.25, ge=0, lt=1)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    downscale_on_read: bool = True
    bfloat16: bool | None = None
    device: str = Field(default="auto", pattern="auto|cpu|cuda")
    batch: int | None = Field(default=None, ge=1)
    reader_threads: int | None = Field(default=None, ge=1)

    def cache_key_fields(self) -> dict[str, Any]:
        """Return the settings that decide what is found in a photo; the others decide in which, and how fast."""
        return self.model_dump(exclude={"datasets", "device", "batch", "reader_threads"})
