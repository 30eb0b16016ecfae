"""Large photos seen as overlapping tiles at several scales, for objects that the whole photo shows too small.

The tiles of a scale have the photo's own shape, so that the network sees buildings squashed as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from ssd.containers import Detections
from ssd.inference.detector import Detector
from ssd.nms import class_aware_nms
from ssd.resize import resize_photo

__all__ = ["TiledDetector", "TilingConfig", "make_tiles"]


@dataclass(frozen=True)
class TilingConfig:
    """How a photo is cut into tiles.

    Attributes:
        levels: How often the tiles are halved: 5 tiles in all with 1, 21 with 2.
        overlap: Share of a tile's side that the next tile shows too.
        min_tile_scale: Minimum side of a tile, relative to that of the network's input.
        margin: Detections that end this close to where their tile was cut, as a share of the tile, are dropped: another
            tile shows them whole.
        max_object_share: Detections that take a larger share of a side of their tile are dropped and left to larger
            tiles: in small ones parts of walls look like buildings.
    """

    levels: int = 2
    overlap: float = 0.25
    min_tile_scale: float = 0.9
    margin: float = 0.01
    max_object_share: float = 0.5

    def __post_init__(self) -> None:
        shares = 0 <= self.overlap < 1 and 0 <= self.margin < 0.5 and 0 < self.max_object_share <= 1
        if not (self.levels >= 1 and self.min_tile_scale > 0 and shares):
            raise ValueError(
                "Tiles have levels from 1, finest above 0, overlap from 0 to below 1, margin below .5, largest above 0 "
                f"to 1; got {self}."
            )


def make_tiles(size: tuple[int, int], input_size: tuple[int, int], config: TilingConfig) -> Tensor:
    """Return the tiles (R, 4) xyxy of a photo of this (height, width): all of it first, then ever smaller ones."""
    tiles, least = [[0, 0, size[1], size[0]]], [side * config.min_tile_scale for side in input_size]
    for level in range(1, config.levels + 1):
        rows, columns = (_spans(side, 2**level, config.overlap) for side in size)
        if rows[0][1] < least[0] or columns[0][1] < least[1]:
            break
        tiles += [[left, top, right, bottom] for top, bottom in rows for left, right in columns]
    return torch.tensor(tiles)


def _spans(side: int, count: int, overlap: float) -> list[tuple[int, int]]:
    """Return so many equal pieces of a side, from end to end."""
    length = min(side, ceil(side / (count - (count - 1) * overlap)))
    begins = [round(place * (side - length) / (count - 1)) for place in range(count)]
    return [(begin, begin + length) for begin in begins]


class TiledDetector:
    """A detector that looks at the whole photo and at its tiles; photos of the size of its input are seen once."""

    def __init__(self, detector: Detector, config: TilingConfig | None = None) -> None:
        self.detector, self.config, self.device = detector, config or TilingConfig(), detector.device

    def inputs_of(self, photo: Tensor) -> Tensor:
        """Return the tiles as the network takes them, uint8 (R, 3, height, width)."""
        tiles = self._tiles((photo.shape[-2], photo.shape[-1])).tolist()
        size = self.detector.input_size
        return torch.stack([resize_photo(photo[:, top:end, left:right], *size) for left, top, right, end in tiles])

    def outputs(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network on tiles."""
        return self.detector.outputs(inputs)

    def detections_of(self, outputs: tuple[Tensor, Tensor], sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Return the detections of whole photos (height, width) from those of all their tiles."""
        tiles = [self._tiles(size) for size in sizes]
        spans = (torch.cat(tiles)[:, 2:] - torch.cat(tiles)[:, :2]).flip(1).tolist()
        found = iter(self.detector.detections_of(outputs, spans))
        return [self._merge(size, own, [next(found) for _ in own]) for size, own in zip(sizes, tiles, strict=True)]

    def _tiles(self, size: tuple[int, int]) -> Tensor:
        return make_tiles(size, self.detector.input_size, self.config)

    def _merge(self, size: tuple[int, int], tiles: Tensor, detections: Sequence[Detections]) -> Detections:
        """Return the detections of a photo from those of its tiles, each in its tile's pixels."""
        counts = torch.tensor([len(one) for one in detections])
        own = tiles.repeat_interleave(counts, dim=0).float()
        boxes = torch.cat([one.boxes for one in detections]) + own[:, :2].repeat(1, 2)
        labels, scores = torch.cat([one.labels for one in detections]), torch.cat([one.scores for one in detections])
        whole = ~(self._is_cut(boxes, own, size) | self._is_large(boxes, own, size))
        boxes, labels, scores = boxes[whole], labels[whole], scores[whole]
        decode = self.detector.decoder.config
        kept = class_aware_nms(boxes, scores, labels, decode.nms_iou)[: decode.max_detections * len(tiles)]
        return Detections(boxes[kept], labels[kept], scores[kept])

    def _is_cut(self, boxes: Tensor, tiles: Tensor, size: tuple[int, int]) -> Tensor:
        """Return where a box ends at an edge of its tile that is none of the photo."""
        margin = self.config.margin * (tiles[:, 2:] - tiles[:, :2])
        begins = (tiles[:, :2] > 0) & (boxes[:, :2] - tiles[:, :2] < margin)
        ends = (tiles[:, 2:] < torch.tensor([size[1], size[0]])) & (tiles[:, 2:] - boxes[:, 2:] < margin)
        return (begins | ends).any(dim=1)

    def _is_large(self, boxes: Tensor, tiles: Tensor, size: tuple[int, int]) -> Tensor:
        """Return where a box takes so much of its tile, unless that is the whole photo, that a larger tile shows it."""
        sides, own = boxes[:, 2:] - boxes[:, :2], tiles[:, 2:] - tiles[:, :2]
        part = (own < torch.tensor([size[1], size[0]])).any(dim=1)
        return part & (sides > self.config.max_object_share * own).any(dim=1)
