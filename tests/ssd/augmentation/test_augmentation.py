"""A plan says what the pixels do: colours like torchvision's, boxes that lie where they are drawn, crops as asked."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from ssd import (
    AUGMENTATIONS,
    NO_AUGMENTATION,
    AugmentationConfig,
    Target,
    TransformPlan,
    apply_plans,
    augment,
    iou_xyxy,
    map_target,
    plan_augmentation,
    resize_photo,
)
from ssd.augmentation import transforms as resampling

LUMA = torch.tensor([0.299, 0.587, 0.114])
STILL = replace(NO_AUGMENTATION, fill=(0.0, 0.0, 0.0))


def photo_of(height: int, width: int, seed: int = 0, low: int = 0, high: int = 256) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(low, high, (1, 3, height // 8 + 2, width // 8 + 2), generator=generator).float()
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return fine.round().to(torch.uint8)[0]


def target_of(boxes: Any, ignore: Any = None, labelled: Any = None) -> Target:
    boxes = torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    ignore = None if ignore is None else torch.tensor(ignore)
    labels = torch.arange(len(boxes)) % 3 + 1
    return Target(boxes, labels, ignore, None if labelled is None else torch.tensor(labelled))


def whole(photo: Tensor, **colours: float) -> TransformPlan:
    height, width = photo.shape[1:]
    return TransformPlan((0, 0, width, height), (0, 0, width, height), (height, width), **colours)


def plan_one(size: tuple[int, int], target: Target, seed: int = 0, **changes: Any) -> TransformPlan:
    config = replace(STILL, **changes)
    return plan_augmentation([size], [target], config, (100, 120), np.random.default_rng(seed))[0]


@pytest.mark.parametrize("size", [(300, 300), (37, 90), (700, 900), (2, 2), (200, 2)])
@pytest.mark.parametrize("shape", [(512, 683), (61, 40), (1, 300), (200, 1)])
def test_the_resize_is_pillows_within_one_grey_level(
    shape: tuple[int, int], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = photo_of(*shape)
    pillow = Image.fromarray(photo.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(pillow)).permute(2, 0, 1).int()
    rows = photo.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    both = resize_photo(photo, *size), resize_photo(rows, *size)
    monkeypatch.setattr(resampling, "supports_uint8_resize", lambda _: False)
    for resized in (*both, resize_photo(photo, *size)):
        assert resized.dtype == torch.uint8
        assert (resized.int() - expected).abs().max() <= 1


def test_drawn_as_on_a_gpu_is_drawn_within_one_grey_level(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [photo_of(70, 90), photo_of(133, 20), photo_of(100, 120)]
    targets = [target_of([[0, 0, 45, 35]]), target_of([]), target_of([[10, 10, 30, 30]])]
    config = replace(AUGMENTATIONS["epfl"], colour_chance=0.0)
    for seed in range(20):
        drawn, _ = augment(photos, targets, config, (100, 120), np.random.default_rng(seed))
        with monkeypatch.context() as patched:
            patched.setattr(resampling, "supports_uint8_resize", lambda _: False)
            floats, _ = augment(photos, targets, config, (100, 120), np.random.default_rng(seed))
        assert floats.dtype == torch.float32
        assert (floats - drawn).abs().max() <= 1


def test_no_augmentation_is_the_resize() -> None:
    photos = [photo_of(70, 90), photo_of(33, 20)]
    targets = [target_of([[0, 0, 45, 35], [89, 69, 90, 70]]), target_of([])]
    inputs, mapped = augment(photos, targets, NO_AUGMENTATION, (140, 90), np.random.default_rng(0))
    assert inputs.dtype == torch.float32
    assert inputs.is_contiguous()
    assert torch.equal(inputs, torch.stack([resize_photo(photo, 140, 90) for photo in photos]).float())
    assert mapped[0].boxes.tolist() == [[0, 0, 45, 70], [89, 138, 90, 140]]
    assert mapped[0].labels.tolist() == [1, 2]
    assert mapped[0].ignore is not None
    assert not mapped[0].ignore.any()
    assert mapped[1].boxes.shape == (0, 4)


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
def test_brightness_contrast_and_saturation_are_torchvisions(factor: float) -> None:
    photo = photo_of(40, 60, low=80, high=150)
    unit = photo.float() / 255
    for name in ("brightness", "contrast", "saturation"):
        (ours,) = apply_plans([photo], [whole(photo, **{name: factor})])
        theirs = getattr(tv, f"adjust_{name}")(unit, factor) * 255
        assert theirs.min() > 0
        assert theirs.max() < 255
        torch.testing.assert_close(ours, theirs, atol=0.05, rtol=0)


@pytest.mark.parametrize("turns", [-0.07, -0.02, 0.02, 0.07])
def test_hue_turns_the_way_of_torchvision_and_keeps_luma(turns: float) -> None:
    photo = photo_of(40, 60, low=90, high=160)
    before = photo.float()
    (ours,) = apply_plans([photo], [whole(photo, hue=turns)])
    theirs = tv.adjust_hue(before / 255, turns) * 255
    torch.testing.assert_close(*(torch.einsum("chw,c->hw", image, LUMA) for image in (ours, before)), atol=0.01, rtol=0)
    # HSV keeps the largest channel in place of luma: what is compared is where the colour goes, not how light it is.
    step, reference = ((after - after.mean(0) - (before - before.mean(0))).flatten() for after in (ours, theirs))
    assert torch.corrcoef(torch.stack([step, reference]))[0, 1] > 0.9
    assert 0.6 < step.norm() / reference.norm() < 1.6


def test_red_turns_to_yellow() -> None:
    red = torch.tensor([180, 60, 60], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    plans = [whole(red, hue=hue) for hue in (18 / 255, -18 / 255)]
    (yellow, magenta) = apply_plans([red, red], plans).mean(dim=(2, 3)).tolist()
    assert yellow[1] > yellow[2] + 20
    assert magenta[2] > magenta[1] + 20


def test_a_whole_turn_is_no_turn_and_grey_has_no_hue() -> None:
    photo = photo_of(20, 30, low=60, high=180)
    torch.testing.assert_close(apply_plans([photo], [whole(photo, hue=1.0)])[0], photo.float(), atol=0.01, rtol=0)
    grey = torch.full((3, 5, 5), 77, dtype=torch.uint8)
    plan = whole(grey, hue=0.1, saturation=1.5, contrast=0.5)
    torch.testing.assert_close(apply_plans([grey], [plan])[0], grey.float(), atol=0.01, rtol=0)


def test_the_order_of_the_colours_means_nothing() -> None:
    """Contrast before or after saturation and hue, and around the mean as brightness leaves it: one result."""
    photo = photo_of(30, 40, low=100, high=140)
    (ours,) = apply_plans([photo], [whole(photo, brightness=0.8, contrast=1.3, saturation=0.6)])
    unit = photo.float() / 255
    changes = {"brightness": 0.8, "contrast": 1.3, "saturation": 0.6}
    for order in (("brightness", "contrast", "saturation"), ("saturation", "brightness", "contrast")):
        theirs = unit
        for name in order:
            theirs = getattr(tv, f"adjust_{name}")(theirs, changes[name])
        torch.testing.assert_close(ours, theirs * 255, atol=0.1, rtol=0)


def test_added_brightness_shifts_and_is_clamped() -> None:
    photo = photo_of(30, 40)
    for added in (32.0, -32.0):
        (ours,) = apply_plans([photo], [whole(photo, brightness_added=added)])
        torch.testing.assert_close(ours, (photo.float() + added).clamp(0, 255))


def test_the_ground_keeps_its_colour_and_is_no_part_of_the_mean() -> None:
    photo = torch.full((3, 40, 40), 200, dtype=torch.uint8)
    photo[:, :20] = 100
    plan = TransformPlan((0, 0, 40, 40), (10, 20, 50, 60), (100, 120), fill=(1.0, 2.0, 3.0), contrast=0.5)
    (drawn,) = apply_plans([photo], [plan])
    assert drawn[:, 20:40, 10:50].unique().tolist() == pytest.approx([125])
    assert drawn[:, 40:60, 10:50].unique().tolist() == pytest.approx([175])
    outside = torch.ones((100, 120), dtype=torch.bool)
    outside[20:60, 10:50] = False
    assert drawn[:, outside].unique(dim=1).flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize("seed", range(40))
def test_boxes_lie_where_they_are_drawn(seed: int) -> None:
    """A white rectangle in a black photo: its pixels lie inside the mapped box, and reach its sides."""
    generator = np.random.default_rng(seed)
    height, width = (int(side) for side in generator.integers(60, 400, 2))
    x0, y0 = int(generator.integers(0, width - 30)), int(generator.integers(0, height - 30))
    x1, y1 = int(generator.integers(x0 + 20, width + 1)), int(generator.integers(y0 + 20, height + 1))
    photo = torch.zeros((3, height, width), dtype=torch.uint8)
    photo[:, y0:y1, x0:x1] = 255
    config = AugmentationConfig(colour_chance=0.0, fill=(0.0, 0.0, 0.0), min_side=0.0)
    inputs, (mapped,) = augment([photo], [target_of([[x0, y0, x1, y1]])], config, (150, 200), generator)
    rows, columns = (inputs[0, 0] > 127.5).nonzero().unbind(dim=1)
    found = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    torch.testing.assert_close(mapped.boxes[0], found.float(), atol=1.0, rtol=0)


def test_a_plan_of_whole_pixels_is_exact() -> None:
    """Each pixel of the photo becomes two by three; mirrored, cut, and set into the input."""
    photo = photo_of(50, 60)
    plan = TransformPlan((10, 5, 40, 45), (20, 10, 110, 90), (100, 120), flip=True, min_side=3.0)
    boxes = [[10, 5, 40, 45], [0, 0, 22, 15], [0, 0, 20, 10], [39, 44, 40, 45], [38, 44, 40, 45]]
    mapped = map_target(target_of(boxes, labelled=[True] * 5), plan)
    assert mapped.boxes.tolist() == [[20, 10, 110, 90], [74, 10, 110, 30], [20, 88, 23, 90], [20, 88, 26, 90]]
    assert mapped.labels.tolist() == [1, 2, 1, 2]
    assert mapped.ignore is not None
    assert mapped.ignore.tolist() == [False, False, True, True]
    assert mapped.labelled is not None
    assert mapped.labelled.tolist() == [True] * 5
    (drawn,) = apply_plans([photo], [plan])
    expected = resize_photo(photo[:, 5:45, 10:40], 80, 90).flip(-1).float()
    assert torch.equal(drawn[:, 10:90, 20:110], expected)
    assert drawn.sum() == expected.sum()


def test_regions_to_ignore_stay_while_any_part_is_seen() -> None:
    plan = TransformPlan((10, 10, 20, 20), (0, 0, 100, 100), (100, 100))
    boxes = [[0, 0, 11, 11], [0, 0, 10, 30], [19.5, 19.5, 30, 30], [0, 0, 11, 11]]
    mapped = map_target(target_of(boxes, [True, True, True, False]), plan)
    assert mapped.boxes.tolist() == [[0, 0, 10, 10], [95, 95, 100, 100]]
    assert mapped.ignore is not None
    assert mapped.ignore.all()


def test_the_generator_alone_decides() -> None:
    sizes, targets = [(100, 200), (300, 100)] * 4, [target_of([[10, 10, 60, 50]]), target_of([])] * 4
    plans = [
        plan_augmentation(sizes, targets, AugmentationConfig(), (300, 300), np.random.default_rng(seed))
        for seed in (1, 1, 2)
    ]
    assert plans[0] == plans[1] != plans[2]
    assert len(set(plans[0])) > 1


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_chances_of_none_and_one(chance: float) -> None:
    target = target_of([[20, 20, 60, 50]])
    changes = {"colour_chance": chance, "zoom_chance": chance, "flip_chance": chance, "brightness_added": (5.0, 9.0)}
    for seed in range(20):
        plan = plan_one((80, 96), target, seed, **changes, zoom=(2.0, 4.0))
        assert plan.flip is bool(chance)
        assert plan.recolours is bool(chance)
        if chance:
            assert 5 <= plan.brightness_added <= 9
            assert abs(plan.hue) <= 18 / 255
            assert all(0.5 <= factor <= 1.5 for factor in (plan.brightness, plan.contrast, plan.saturation))
            left, top, right, bottom = plan.destination
            assert 29 <= right - left <= 61
            assert 24 <= bottom - top <= 51
        else:
            assert plan.destination == (0, 0, 120, 100)
        assert plan.source == (0, 0, 96, 80)


def test_half_of_the_chances_happen() -> None:
    targets = [target_of([[20, 20, 60, 50]])] * 2000
    config = replace(AugmentationConfig(), min_crop_ious=())
    plans = plan_augmentation([(80, 96)] * 2000, targets, config, (300, 300), np.random.default_rng(0))
    for happened in (
        [plan.flip for plan in plans],
        [plan.destination != (0, 0, 300, 300) for plan in plans],
        [plan.contrast != 1 for plan in plans],
        [plan.hue != 0 for plan in plans],
    ):
        assert 0.45 < np.mean(happened) < 0.55
    assert np.mean([plan.hue for plan in plans]) == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.5, 0.9])
def test_crops_have_the_overlap_that_was_asked_for(overlap: float) -> None:
    """The square of the photo that is seen is the crop: nothing is zoomed out here."""
    generator = torch.Generator().manual_seed(4)
    starts = torch.rand((6, 2), generator=generator) * 100
    boxes = torch.cat([starts, starts + 20 + 80 * torch.rand((6, 2), generator=generator)], dim=1)
    target, cropped = target_of(boxes), 0
    for seed in range(60):
        plan = plan_one((200, 220), target, seed, min_crop_ious=(overlap,))
        if plan.source == (0, 0, 220, 200):
            continue
        cropped += 1
        x0, y0, x1, y1 = plan.source
        assert 0.5 <= (x1 - x0) / (y1 - y0) <= 2
        assert 65 <= x1 - x0 <= 220
        assert 59 <= y1 - y0 <= 200
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        kept = ((centres > torch.tensor([x0, y0])) & (centres < torch.tensor([x1, y1]))).all(dim=1)
        assert iou_xyxy(boxes[kept], torch.tensor([[x0, y0, x1, y1]], dtype=torch.float32)).max() >= overlap - 1e-6
        assert len(map_target(target, plan).labels) == kept.sum()
    assert cropped > 5 or overlap == 0.9


def test_regions_to_ignore_do_not_count_for_the_overlap() -> None:
    boxes = [[0, 0, 200, 200], [90, 90, 110, 110]]
    for seed in range(20):
        counted = plan_one((200, 200), target_of(boxes), seed, min_crop_ious=(0.5,))
        assert counted.source != (0, 0, 200, 200)
        alone = plan_one((200, 200), target_of(boxes, [True, False]), seed, min_crop_ious=(0.5,))
        assert alone.source == (0, 0, 200, 200)


def test_each_overlap_is_asked_for_as_often() -> None:
    target = target_of([[0, 0, 100, 100]])
    whole_photos = [
        plan_one((100, 100), target, seed, min_crop_ious=(0.1, 0.2, None)).source[2:] for seed in range(600)
    ]
    assert 0.27 < np.mean([end == (100, 100) for end in whole_photos]) < 0.4


def test_a_photo_without_objects_is_cropped_all_the_same() -> None:
    for target in (target_of([]), target_of([[3, 3, 5, 5]], [True])):
        plans = [plan_one((100, 100), target, seed, min_crop_ious=(0.9,)) for seed in range(30)]
        assert all(plan.source != (0, 0, 100, 100) for plan in plans)


def test_a_batch_is_its_photos_one_by_one() -> None:
    photos = [photo_of(60 + 10 * n, 150 - 10 * n, n) for n in range(8)]
    targets = [target_of([[5, 5, 40, 30], [0, 0, 60, 60]][: n % 3]) for n in range(8)]
    sizes = [(60 + 10 * n, 150 - 10 * n) for n in range(8)]
    plans = plan_augmentation(sizes, targets, AugmentationConfig(), (90, 80), np.random.default_rng(3))
    batch = apply_plans(photos, plans)
    for n in range(8):
        torch.testing.assert_close(batch[n : n + 1], apply_plans([photos[n]], [plans[n]]), atol=1e-3, rtol=0)
    inputs, mapped = augment(photos, targets, AugmentationConfig(), (90, 80), np.random.default_rng(3))
    assert torch.equal(inputs, batch)
    assert all(
        torch.equal(one.boxes, map_target(target, plan).boxes)
        for one, target, plan in zip(mapped, targets, plans, strict=True)
    )


def test_a_tensor_of_photos_is_a_batch_too_and_nothing_given_is_changed() -> None:
    photos = torch.stack([photo_of(60, 80, n) for n in range(4)])
    starts = torch.rand((300, 2)) * 40
    targets = [target_of(torch.cat([starts, starts + 9], dim=1), [False] * 299 + [True])] * 4
    before = photos.clone(), targets[0].boxes.clone(), targets[0].ignore.clone()  # type: ignore[union-attr]
    inputs, mapped = augment(photos, targets, AugmentationConfig(), (60, 80), np.random.default_rng(2))
    again, _ = augment(list(photos), targets, AugmentationConfig(), (60, 80), np.random.default_rng(2))
    assert torch.equal(inputs, again)
    assert inputs.shape == (4, 3, 60, 80)
    assert len(mapped) == 4
    inputs.zero_()
    for target in mapped:
        target.boxes.zero_()
    assert torch.equal(photos, before[0])
    assert torch.equal(targets[0].boxes, before[1])
    assert torch.equal(targets[0].ignore, before[2])  # type: ignore[arg-type]


def test_pixels_never_decide_what_is_done() -> None:
    """Tensors without values: reading one, which would make a GPU wait, is an error."""
    photos = [torch.zeros((3, 50, 60), dtype=torch.uint8, device="meta")] * 8
    config = replace(AugmentationConfig(), colour_chance=1.0, zoom_chance=1.0)
    inputs, _ = augment(photos, [target_of([[5, 5, 40, 30]])] * 8, config, (30, 40), np.random.default_rng(0))
    assert inputs.shape == (8, 3, 30, 40)
    assert inputs.device.type == "meta"


@st.composite
def photos_with_boxes(draw: st.DrawFn) -> tuple[tuple[int, int], Target]:
    height, width = draw(st.integers(1, 6000)), draw(st.integers(1, 6000))
    share = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1))
    tiny = st.one_of(st.sampled_from([1e-3, 0.02, 1.0]), st.floats(1e-3, 1))
    shares = draw(st.lists(st.tuples(share, share, tiny, tiny), max_size=8))
    size = np.array([width, height])
    boxes = []
    for x, y, wide, high in shares:
        end = np.float32(np.minimum(np.array([x + wide, y + high]) * size, size))
        start = np.float32(np.minimum(np.array([x, y]) * size, end))
        if (start < end).all():
            boxes.append([*start.tolist(), *end.tolist()])
    ignore = draw(st.lists(st.booleans(), min_size=len(boxes), max_size=len(boxes)))
    return (height, width), target_of(boxes, torch.tensor(ignore, dtype=torch.bool).tolist() or None)


@given(photos_with_boxes(), st.sampled_from(["epfl", "paper", "none"]), st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_boxes_are_inside_and_have_a_size(photo: tuple[tuple[int, int], Target], name: str, seed: int) -> None:
    size, target = photo
    config = AUGMENTATIONS[name]
    (plan,) = plan_augmentation([size], [target], config, (300, 200), np.random.default_rng(seed))
    assert plan.source[2] <= size[1]
    assert plan.source[3] <= size[0]
    mapped = map_target(target, plan)  # a target refuses boxes without a size
    left, top, right, bottom = plan.destination
    assert mapped.ignore is not None
    assert ((mapped.boxes >= torch.tensor([left, top] * 2)) & (mapped.boxes <= torch.tensor([right, bottom] * 2))).all()
    sides = (mapped.boxes[:, 2:] - mapped.boxes[:, :2])[~mapped.ignore]
    assert (sides >= config.min_side).all()
    if name == "none":
        assert len(mapped.labels) == len(target.labels)


@given(photos_with_boxes(), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_a_crop_shows_an_object_where_there_is_one(photo: tuple[tuple[int, int], Target], seed: int) -> None:
    size, target = photo
    plan = plan_one(size, target, seed, zoom_chance=1.0, zoom=(1.0, 4.0), min_crop_ious=(0.0,))
    ignore = torch.zeros(len(target.labels), dtype=torch.bool) if target.ignore is None else target.ignore
    boxes = target.boxes[~ignore].double()
    centres, (left, top, right, bottom) = (boxes[:, :2] + boxes[:, 2:]) / 2, plan.source
    x, y = centres.unbind(dim=1)
    assert not len(boxes) or ((left < x) & (x < right) & (top < y) & (y < bottom)).any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour_chance": 1.5}, "colour_chance of an augmentation is from 0 to 1; got 1.5."),
        ({"flip_chance": True}, "flip_chance of an augmentation is from 0 to 1; got True."),
        ({"zoom": (0.5, 2)}, "zoom of an augmentation is from 1 to 100; got 0.5."),
        ({"zoom": 3.0}, "zoom of an augmentation is 2 numbers; got 3.0."),
        ({"hue": (0.1, -0.1)}, "hue of an augmentation is .least, most.; got .0.1, -0.1.."),
        ({"contrast": (float("nan"), 1)}, "contrast of an augmentation is from 0 to 100; got nan."),
        ({"fill": (0, 0, 256)}, "fill of an augmentation is from 0 to 255; got 256."),
        ({"min_crop_ious": (0.5, 1.5)}, "min_crop_ious of an augmentation is from 0 to 1; got 1.5."),
        ({"min_crop_ious": 0.5}, "min_crop_ious of an augmentation are numbers and None; got 0.5."),
        ({"trials": 0}, "trials of an augmentation is a whole number above zero; got 0."),
        ({"min_side": "2"}, "min_side of an augmentation is from 0 to 1000; got '2'."),
    ],
)
def test_wrong_settings_are_sentences(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AugmentationConfig(**changes)


def test_settings_of_lists_equal_those_of_tuples() -> None:
    assert AugmentationConfig(zoom=[1, 4], min_crop_ious=[0.1, 0.3, 0.5, 0.7, 0.9, 0, None]) == AugmentationConfig()  # type: ignore[arg-type]


def test_wrong_photos_and_plans_are_sentences() -> None:
    photo = photo_of(20, 30)
    with pytest.raises(ValueError, match="A photo is uint8 of shape"):
        resize_photo(photo.float(), 5, 5)
    with pytest.raises(ValueError, match="2 pixels or more each way; got"):
        resize_photo(photo, 5, 1)
    with pytest.raises(ValueError, match="lies inside its photo"):
        apply_plans([photo], [TransformPlan((0, 0, 31, 20), (0, 0, 5, 5), (5, 5))])
    with pytest.raises(ValueError, match="as many, one at least"):
        apply_plans([photo, photo], [whole(photo)])
    with pytest.raises(ValueError, match="as many, one at least"):
        apply_plans([], [])
    with pytest.raises(ValueError, match="The source of a plan"):
        TransformPlan((3, 0, 3, 20), (0, 0, 5, 5), (5, 5))
    with pytest.raises(ValueError, match="The destination of a plan"):
        TransformPlan((0, 0, 3, 20), (0, 0, 5, 6), (5, 5))
    with pytest.raises(ValueError, match="Each photo has a target"):
        plan_augmentation([(3, 3)], [], NO_AUGMENTATION, (5, 5), np.random.default_rng(0))


def test_a_training_step_in_half_precision_has_the_same_inputs() -> None:
    photo, plan = (
        torch.arange(192, dtype=torch.uint8).reshape(3, 8, 8),
        TransformPlan((0, 0, 8, 8), (0, 0, 8, 8), (8, 8), hue=0.1),
    )
    with torch.autocast("cpu", torch.bfloat16):
        inputs = apply_plans([photo], [plan])
    assert torch.equal(inputs, apply_plans([photo], [plan]))
