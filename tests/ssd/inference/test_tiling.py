"""Tiles: they cover the photo, what they cut is left to others, and what two of them see counts once."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ssd import (
    SSD,
    BackboneConfig,
    Bundle,
    Detections,
    Detector,
    ModelConfig,
    TiledDetector,
    TilingConfig,
    make_tiles,
    preset,
)

INPUT = (300, 300)
sides = st.integers(1, 4000)


@given(height=sides, width=sides, overlap=st.sampled_from([0.0, 0.25, 0.5]))
def test_tiles_cover_the_photo_and_stay_in_it(height: int, width: int, overlap: float) -> None:
    tiles = make_tiles((height, width), INPUT, TilingConfig(overlap=overlap))
    assert tiles[0].tolist() == [0, 0, width, height]
    assert bool((tiles[:, 2:] > tiles[:, :2]).all())
    assert bool((tiles[:, :2] >= 0).all())
    assert bool((tiles[:, 2:] <= torch.tensor([width, height])).all())
    sizes = (tiles[:, 2:] - tiles[:, :2]).unique(dim=0)
    for size in sizes:
        own = tiles[((tiles[:, 2:] - tiles[:, :2]) == size).all(dim=1)]
        for axis, side in ((0, width), (1, height)):
            spans = sorted({(tile[axis], tile[axis + 2]) for tile in own.tolist()})
            assert (spans[0][0], spans[-1][1]) == (0, side)
            assert all(after[0] <= before[1] for before, after in pairwise(spans))
    if len(tiles) > 1:
        assert bool(((tiles[:, 2:] - tiles[:, :2]) >= 270).all())


@pytest.mark.parametrize(
    ("size", "count"), [((300, 300), 1), ((470, 683), 1), ((512, 683), 5), ((900, 900), 21), ((4000, 4000), 21)]
)
def test_the_number_of_tiles(size: tuple[int, int], count: int) -> None:
    assert len(make_tiles(size, INPUT, TilingConfig())) == count


def test_objects_below_the_overlap_are_seen_whole_in_some_tile() -> None:
    tiles = make_tiles((2000, 1600), INPUT, TilingConfig(overlap=0.25)).float()
    finest = tiles[(tiles[:, 3] - tiles[:, 1]) < 700]
    side = (0.25 * (finest[0, 2:] - finest[0, :2])).floor() - 2
    low = torch.rand(5000, 2) * (torch.tensor([1600.0, 2000.0]) - side)
    boxes = torch.cat([low, low + side], dim=1)
    inside = (boxes[:, None, :2] >= finest[None, :, :2]) & (boxes[:, None, 2:] <= finest[None, :, 2:])
    assert bool(inside.all(dim=2).any(dim=1).all())


class Known(Detector):
    """A detector that finds the parts of known boxes that it is shown, and nothing else."""

    def __init__(self, tiles: Tensor, boxes: Tensor) -> None:
        super().__init__(Bundle(SSD(ModelConfig(preset("paper_coco"), ("window",), BackboneConfig("tiny"))).eval()))
        self.tiles, self.boxes = tiles.float(), boxes

    def detections_of(self, outputs: tuple[Tensor, Tensor], sizes: Sequence[tuple[int, int]]) -> list[Detections]:  # noqa: ARG002
        return [self._shown(tile) for tile in self.tiles]

    def _shown(self, tile: Tensor) -> Detections:
        shift = tile[:2].repeat(2)
        cut = torch.cat([self.boxes[:, :2].maximum(tile[:2]), self.boxes[:, 2:].minimum(tile[2:])], dim=1) - shift
        seen = ((cut[:, 2:] - cut[:, :2]) > 1).all(dim=1)
        count = int(seen.sum())
        return Detections(cut[seen], torch.ones(count, dtype=torch.int64), torch.linspace(0.9, 0.8, count))


def test_what_tiles_cut_is_left_out_and_what_two_see_counts_once() -> None:
    generator = torch.Generator().manual_seed(3)
    low = torch.stack(torch.meshgrid(torch.arange(20, 1900, 70.0), torch.arange(20, 1400, 70.0), indexing="xy"), dim=-1)
    low = low.reshape(-1, 2)
    boxes = torch.cat([low, low + 20 + 30 * torch.rand(len(low), 2, generator=generator)], dim=1)
    boxes = torch.cat([boxes, torch.tensor([[0.0, 0.0, 1950.0, 1450.0]])])  # one that only the whole photo shows
    size = (1450, 1950)
    tiles = make_tiles(size, INPUT, TilingConfig())
    tiled = TiledDetector(Known(tiles, boxes))
    (found,) = tiled.detections_of((torch.zeros(0), torch.zeros(0)), [size])
    assert len(found) == len(boxes)
    order = found.boxes.round().long().tolist()
    assert sorted(order) == sorted(boxes.round().long().tolist())
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


class Walls(Known):
    """A detector that takes most of whatever it is shown for one thing."""

    def _shown(self, tile: Tensor) -> Detections:
        sides = (tile[2:] - tile[:2]).repeat(2)
        return Detections((sides * torch.tensor([0.1, 0.1, 0.9, 0.8]))[None], torch.ones(1).long(), torch.ones(1))


def test_what_fills_a_tile_is_left_to_a_larger_one() -> None:
    size = (1450, 1950)
    tiled = TiledDetector(Walls(make_tiles(size, INPUT, TilingConfig()), torch.zeros(0, 4)))
    (found,) = tiled.detections_of((torch.zeros(0), torch.zeros(0)), [size])
    assert found.boxes.round().tolist() == [[195, 145, 1755, 1160]]


def test_a_photo_as_small_as_the_input_is_seen_once_and_as_without_tiles() -> None:
    torch.manual_seed(1)
    detector = Detector(
        Bundle(SSD(ModelConfig(preset("paper_coco"), ("window",), BackboneConfig("tiny"))).eval()), bfloat16=False
    )
    photo = torch.randint(0, 256, (3, 310, 330), dtype=torch.uint8)
    tiled = TiledDetector(detector)
    inputs = tiled.inputs_of(photo)
    assert inputs.shape == (1, 3, 300, 300)
    (found,), (plain,) = tiled.detections_of(tiled.outputs(inputs), [(310, 330)]), detector([photo])
    assert torch.allclose(found.boxes, plain.boxes)
    assert torch.equal(found.scores, plain.scores)


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": 0},
        {"overlap": 1.0},
        {"overlap": -0.1},
        {"min_tile_scale": 0.0},
        {"margin": 0.5},
        {"max_object_share": 0.0},
    ],
)
def test_settings_that_make_no_tiles_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="overlap from 0"):
        TilingConfig(**wrong)
