"""Any number of photos in, their detections out in the same order: reading, network and results at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import islice
from threading import get_ident
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from ssd.containers import Detections

__all__ = ["BatchedModel", "InferenceStream", "LoadedPhoto", "StreamResult"]

Item = TypeVar("Item")
Outputs = tuple[Tensor, Tensor]
Size = tuple[int, int]

# Batches that are read ahead of the network, so that one slow file does not stop it.
READ_AHEAD_BATCHES = 3
# Batches whose results are not waited for: while one is computed, a GPU has the next to go on with.
GPU_PIPELINE_DEPTH = 2


@dataclass(frozen=True)
class LoadedPhoto:
    """A photo as it was read.

    Attributes:
        photo: uint8 (3, H, W), whole or already smaller.
        size: (height, width) of the photo itself; detections are in its pixels.
    """

    photo: Tensor
    size: Size


@dataclass(frozen=True)
class StreamResult(Generic[Item]):
    """What became of an item: its photo's size and detections, or what was wrong with it."""

    item: Item
    size: Size | None = None
    detections: Detections | None = None
    error: Exception | None = None


class BatchedModel(Protocol):
    """What a stream runs: `ssd.Detector`, or whatever stands in for it."""

    device: torch.device

    def inputs_of(self, photo: Tensor) -> Tensor:
        """Return a photo (3, H, W) as rows of a batch, one or several; called in the threads that read."""

    def outputs(self, inputs: Tensor) -> Outputs:
        """Run the network on a batch, without waiting for a GPU."""

    def detections_of(self, outputs: Outputs, sizes: Sequence[Size]) -> list[Detections]:
        """Return the detections of photos of these sizes (height, width), in their pixels."""


@dataclass(frozen=True)
class _PreparedItem(Generic[Item]):
    """An item on its way: what the network gets, or what was wrong."""

    item: Item
    size: Size | None = None
    inputs: Tensor | None = None
    error: Exception | None = None

    @property
    def rows(self) -> int:
        """Its share of a batch; what was wrong takes a place too, or there might be any number in one."""
        return 1 if self.inputs is None else len(self.inputs)


class InferenceStream(Generic[Item]):
    """A network that waits for nothing while there are threads enough to read for it.

    Args:
        network: What finds.
        read: Returns an item's photo; what it raises is returned in the item's place.
        reader_threads: Threads that read, decode and resize.
        batch: Rows that go through the network at once: photos, where each is one row.
    """

    def __init__(
        self, network: BatchedModel, read: Callable[[Item], LoadedPhoto], reader_threads: int, batch: int
    ) -> None:
        self.network, self.read, self.reader_threads, self.batch = network, read, reader_threads, batch
        # Results of one batch are made while the next is computed, which on a GPU takes a stream of its own.
        self.side_stream = _side_stream(network.device, get_ident()) if network.device.type == "cuda" else None

    def __call__(self, items: Iterable[Item]) -> Iterator[StreamResult[Item]]:
        """Yield the result of each item, in their order."""
        with ThreadPoolExecutor(self.reader_threads, "read") as readers, ThreadPoolExecutor(1, "found") as results:
            pending: deque[Future[list[StreamResult[Item]]]] = deque()
            for part in self._batches(readers, items):
                outputs, ready = self._outputs([one.inputs for one in part if one.inputs is not None])
                pending.append(results.submit(self._results_of, part, outputs, ready))
                if len(pending) > GPU_PIPELINE_DEPTH:
                    yield from pending.popleft().result()
            for future in pending:
                yield from future.result()

    def _batches(self, pool: ThreadPoolExecutor, items: Iterable[Item]) -> Iterator[list[_PreparedItem[Item]]]:
        """Yield items as they were read, a batch of rows at a time."""
        part: list[_PreparedItem[Item]] = []
        rows = 0
        for one in self._read_ahead(pool, items):
            part.append(one)
            rows += one.rows
            if rows >= self.batch:
                yield part
                part, rows = [], 0
        if part:
            yield part

    def _read_ahead(self, pool: ThreadPoolExecutor, items: Iterable[Item]) -> Iterator[_PreparedItem[Item]]:
        """Yield items as they were read, with more of them always under way.

        A task reads several where a batch is large: handing over is Python, which one thread does at a time.
        """
        source, chunk = iter(items), max(self.batch // (2 * self.reader_threads), 1)
        tasks: deque[Future[list[_PreparedItem[Item]]]] = deque()
        most = self.reader_threads  # until it is known how many rows a photo has
        while True:
            while len(tasks) < most and (taken := list(islice(source, chunk))):
                tasks.append(pool.submit(lambda some: [self._prepare(one) for one in some], taken))
            if not tasks:
                return
            read = tasks.popleft().result()
            most = max(READ_AHEAD_BATCHES * self.batch // sum(one.rows for one in read), self.reader_threads)
            yield from read

    def _prepare(self, item: Item) -> _PreparedItem[Item]:
        try:
            with _translate_memory_errors():
                read = self.read(item)
                return _PreparedItem(item, read.size, self.network.inputs_of(read.photo))
        except MemoryError:  # may be the fault of a photo that is read at the same time
            raise
        except Exception as error:  # an error of one photo is returned in its place
            return _PreparedItem(item, error=error)

    def _outputs(self, inputs: list[Tensor]) -> tuple[Outputs | None, torch.cuda.Event | None]:
        """Run the network; on a GPU return also the event of its completion."""
        if not inputs:
            return None, None
        rows, on_gpu = sum(map(len, inputs)), self.side_stream is not None
        whole = torch.cat(inputs, out=inputs[0].new_empty((rows, *inputs[0].shape[1:]), pin_memory=on_gpu))
        if not on_gpu:
            return self._run_sequentially(whole), None
        outputs, ready = self._run_sequentially(whole), torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record(torch.cuda.current_stream(self.network.device))
        return outputs, ready

    def _run_sequentially(self, inputs: Tensor) -> Outputs:
        """Run the network on rows that may be more than a batch, where photos have several.

        A batch that there is no memory for is halved, and so are those that follow.
        """
        try:
            with _translate_memory_errors():
                parts = [self.network.outputs(part) for part in torch.split(inputs, self.batch)]
        except MemoryError:
            if self.batch == 1:
                raise
            self.batch //= 2
            torch.cuda.empty_cache()  # nothing where no GPU was used
            return self._run_sequentially(inputs)
        offsets, logits = zip(*parts, strict=True)
        return (torch.cat(offsets), torch.cat(logits)) if len(parts) > 1 else parts[0]

    def _results_of(
        self, part: list[_PreparedItem[Item]], outputs: Outputs | None, ready: torch.cuda.Event | None
    ) -> list[StreamResult[Item]]:
        sizes = [one.size for one in part if one.size is not None]
        detections: Iterator[Detections] = iter(())
        if outputs is not None:
            with _translate_memory_errors(), self._collect_on_side_stream(outputs, ready):
                detections = iter(self.network.detections_of(outputs, sizes))
        return [
            StreamResult(one.item, one.size, next(detections))
            if one.error is None
            else StreamResult(one.item, error=one.error)
            for one in part
        ]

    def _collect_on_side_stream(
        self, outputs: Outputs, ready: torch.cuda.Event | None
    ) -> AbstractContextManager[object]:
        """Return a context in which a GPU computes results during the next batch."""
        if self.side_stream is None or ready is None:
            return nullcontext()
        self.side_stream.wait_event(ready)
        for tensor in outputs:
            tensor.record_stream(self.side_stream)
        return torch.cuda.stream(self.side_stream)


@cache
def _side_stream(device: torch.device, _thread: int) -> torch.cuda.Stream:
    """Return a GPU's stream for the results of one thread's photos; PyTorch keeps memory for each there ever was."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def _translate_memory_errors() -> Iterator[None]:
    """Raise MemoryError for what PyTorch raises of memory: an error of its own on a GPU, a plain one on a CPU."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise MemoryError(str(error)) from error
