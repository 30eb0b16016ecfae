"""The stream: every item comes out once, in order, with its detections or what was wrong, and few lie in memory."""

import threading
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from ssd import (
    SSD,
    BackboneConfig,
    Bundle,
    Detections,
    Detector,
    InferenceStream,
    LoadedPhoto,
    ModelConfig,
    best_batch,
    preset,
)
from ssd.inference.batch_size import CPU_BATCH
from ssd.inference.stream import READ_AHEAD_BATCHES


class Echo:
    """A network of no layers: a photo's brightness as a box; so many rows of a batch for each photo."""

    def __init__(self, rows: int = 1, memory: int = 1000) -> None:
        self.device, self.rows, self.memory = torch.device("cpu"), rows, memory
        self.batches: list[int] = []

    def inputs_of(self, photo: Tensor) -> Tensor:
        return photo[None, :, :1, :1].repeat(self.rows, 1, 1, 1)

    def outputs(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if len(inputs) > self.memory:
            raise torch.OutOfMemoryError("no memory")
        self.batches.append(len(inputs))
        return inputs.float(), inputs.float()

    def detections_of(self, outputs: tuple[Tensor, Tensor], sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        values = outputs[0][:: self.rows, 0, 0, 0].tolist()
        return [
            Detections(torch.tensor([[0.0, 0.0, value + 1, height]]), torch.tensor([1]), torch.tensor([0.5]))
            for value, (height, _) in zip(values, sizes, strict=True)
        ]


def photo(number: int) -> LoadedPhoto:
    return LoadedPhoto(torch.full((3, 4, 5), number, dtype=torch.uint8), (400 + number, 500))


def numbers(found: Sequence[object]) -> list[float]:
    return [one.detections.boxes[0, 2].item() - 1 for one in found if one.detections is not None]  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 40])
@pytest.mark.parametrize("readers", [1, 4])
def test_every_item_comes_out_in_its_place(count: int, readers: int) -> None:
    found = list(InferenceStream(Echo(), photo, readers, batch=4)(range(count)))
    assert [one.item for one in found] == list(range(count))
    assert numbers(found) == list(range(count))
    assert [one.size for one in found] == [(400 + number, 500) for number in range(count)]
    assert [one.detections.boxes[0, 3].item() for one in found if one.detections] == [400 + n for n in range(count)]


def test_batches_are_whole_where_readers_take_several_photos_at_once() -> None:
    network = Echo()
    assert numbers(list(InferenceStream(network, photo, 1, batch=7)(range(40)))) == list(range(40))
    assert network.batches == [7, 7, 7, 7, 7, 5]


def test_what_is_wrong_with_a_photo_is_told_in_its_place() -> None:
    def read(number: int) -> LoadedPhoto:
        if number % 3 == 1:
            raise OSError(f"photo {number} is away")
        return photo(number)

    found = list(InferenceStream(Echo(), read, 2, batch=4)(range(20)))
    assert [one.item for one in found] == list(range(20))
    wrong = [number for number in range(20) if number % 3 == 1]
    assert [str(one.error) for one in found if one.error] == [f"photo {number} is away" for number in wrong]
    assert numbers(found) == [number for number in range(20) if number % 3 != 1]
    nothing = list(InferenceStream(Echo(), lambda _: read(1), 2, batch=4)(range(9)))
    assert [str(one.error) for one in nothing] == ["photo 1 is away"] * 9


def test_no_memory_is_nobody_s_fault_and_ends_the_stream() -> None:
    def read(number: int) -> LoadedPhoto:
        if number == 5:
            raise MemoryError
        return photo(number)

    with pytest.raises(MemoryError):
        list(InferenceStream(Echo(), read, 2, batch=4)(range(20)))


def test_several_rows_of_a_photo_go_through_in_batches() -> None:
    network = Echo(rows=7)
    assert numbers(list(InferenceStream(network, photo, 2, batch=4)(range(10)))) == list(range(10))
    assert network.batches == [4, 3] * 10


def test_a_batch_without_memory_is_halved_for_good() -> None:
    network = Echo(memory=3)
    assert numbers(list(InferenceStream(network, photo, 2, batch=8)(range(30)))) == list(range(30))
    assert max(network.batches) == 2
    with pytest.raises(MemoryError):
        list(InferenceStream(Echo(memory=0), photo, 2, batch=8)(range(3)))


@pytest.mark.parametrize(("rows", "most"), [(1, (READ_AHEAD_BATCHES + 3) * 8), (7, 14)])
def test_few_photos_are_read_ahead_and_fewer_that_have_many_rows(rows: int, most: int) -> None:
    taken, lock = 0, threading.Lock()

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(10_000):
            with lock:
                taken += 1
            yield number

    for passed, found in enumerate(InferenceStream(Echo(rows), photo, 4, batch=8)(items())):
        assert found.item == passed
        assert taken <= passed + most
        if passed == 200:
            break


def test_a_stream_finds_what_the_detector_finds() -> None:
    torch.manual_seed(0)
    model = SSD(ModelConfig(preset("paper_coco"), ("window",), BackboneConfig("tiny"))).eval()
    detector = Detector(Bundle(model), bfloat16=False)
    photos = [torch.randint(0, 256, (3, 200 + 10 * n, 300 - 5 * n), dtype=torch.uint8) for n in range(6)]
    stream = InferenceStream(detector, lambda n: LoadedPhoto(photos[n], tuple(photos[n].shape[1:])), 2, batch=3)  # type: ignore[arg-type]
    expected = [*detector(photos[:3]), *detector(photos[3:])]
    for one, other in zip(stream(range(6)), expected, strict=True):
        assert one.detections is not None
        assert torch.equal(one.detections.boxes, other.boxes)
        assert torch.equal(one.detections.scores, other.scores)


def test_on_a_cpu_the_batch_is_small_and_nothing_is_tried() -> None:
    network = Echo()
    assert best_batch(network, torch.zeros(1, 3, 4, 4, dtype=torch.uint8)) == CPU_BATCH <= 4
    assert network.batches == []
