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
    """Settings of a detection: how photos are read, and which detections are kept.

    Attributes:
        datasets: of a work folder, only these; default: all.
        min_score: minimum score of a detection; default: the bundle's, as for the next two.
        nms_iou: of two detections of a class that overlap by more than this IoU, the better one is kept.
        max_detections: maximum number of detections of a photo, or of each tile.
        threshold: detections with at least this score are `selected`; default: the selection of the bundle's operating
            point, if `evaluate` has written one; .5 in a work folder's own photos, to which that is fitted.
        tile: also detect in overlapping tiles of large photos, for objects of a few pixels; several times the work.
        tile_levels: how often tiles are halved: 5 tiles in all with 1, 21 with 2.
        tile_overlap: share of a tile's side that its neighbour shows too.
        max_pixels: larger photos are rejected.
        downscale_on_read: decode JPEG files at a smaller size if that is enough for the network's input.
        bfloat16: compute in bfloat16; default: if the processor or GPU does that fast.
        device: cpu, cuda or auto.
        batch: photos or tiles per batch; default: the fastest.
        reader_threads: threads per shard that read and decode; default: two, for a GPU its share of the cores.
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
