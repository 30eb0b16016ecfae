"""Networks that answer at once, and a command that runs `detect` with them; workers import them from here."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.execution.parallel import WorkerConfig
from pipeline.execution.runner import Context
from pipeline.stages.detect.config import DetectConfig
from pipeline.stages.detect.inference import LoadedModel
from pipeline.stages.detect.job import Job
from pipeline.stages.detect.stage import run
from ssd import Detections

MIN_BRIGHTNESS = 128
DELAY = float(os.environ.get("STUB_DELAY", "0"))  # seconds a photo, so that there is time to disturb


class BrightRectangleModel:
    """Finds the bright rectangle of a photo, and says how bright it is, whatever size it is shown in."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def inputs_of(self, photo: Tensor) -> Tensor:
        """Return the rectangle as shares of the photo's sides, and its brightness, (1, 5)."""
        time.sleep(DELAY)
        bright = photo[0] >= MIN_BRIGHTNESS
        if not bool(bright.any()):
            return torch.zeros(1, 5)
        height, width = bright.shape
        columns, rows = bright.any(dim=0).nonzero().flatten(), bright.any(dim=1).nonzero().flatten()
        low_x, high_x, low_y, high_y = columns[0], columns[-1] + 1, rows[0], rows[-1] + 1
        value = photo[:, bright].float().mean() / 255
        return torch.stack([low_x / width, low_y / height, high_x / width, high_y / height, value])[None]

    def outputs(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inputs."""
        return inputs[:, :4], inputs[:, 4]

    def detections_of(self, outputs: tuple[Tensor, Tensor], sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Return the rectangle of each photo, if it has one."""
        scale = torch.tensor([[width, height, width, height] for height, width in sizes])
        found = zip(outputs[0] * scale, outputs[1], strict=True)
        return [
            Detections(box[None][value[None] > 0], torch.ones(int(value > 0)).long(), value[None][value[None] > 0])
            for box, value in found
        ]


class FaultyModel(BrightRectangleModel):
    """A network that a black photo costs its process: by all memory, or by a signal."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def inputs_of(self, photo: Tensor) -> Tensor:
        """Return the rectangle, if this process lives on."""
        if not bool(photo.any()):
            if self.fault == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            eaten = []
            while self.fault == "eat":
                eaten.append(bytearray(1 << 26))
        return super().inputs_of(photo)


class ConstantModel(BrightRectangleModel):
    """A network that takes photos at their own size and finds one box in each, the same."""

    BOX = Detections(torch.tensor([[1.0, 2.0, 30.0, 40.0]]), torch.tensor([1]), torch.tensor([0.75]))

    def inputs_of(self, photo: Tensor) -> Tensor:
        """Return the photo."""
        return photo[None]

    def outputs(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the photos twice."""
        return inputs, inputs

    def detections_of(self, outputs: tuple[Tensor, Tensor], sizes: Sequence[tuple[int, int]]) -> list[Detections]:  # noqa: ARG002
        """Return the box, once a photo."""
        return [self.BOX] * len(sizes)


@dataclass(frozen=True)
class StubSpec:
    """A finder of one of these networks; `min_size` lets JPEG files come smaller."""

    kind: str = "lights"
    path: str = ""
    operating_point_digest: str | None = None
    classes: tuple[str, ...] = ("window",)
    min_size: tuple[int, int] = (0, 0)

    @property
    def digest(self) -> str:
        """The network's name."""
        return self.kind

    def load(self, config: DetectConfig) -> LoadedModel:
        """Return the network."""
        network = {"lights": BrightRectangleModel, "nothing": ConstantModel}.get(self.kind)
        return LoadedModel(
            network() if network else FaultyModel(self.kind), ("window",), self.min_size, config.batch or 8
        )


def main(source: str, out: str, kind: str = "lights", workers: str = "2", scheduler: str = "", mode: str = "") -> None:
    """Run `detect` with a stub as the command line would; `mode` says --retry-failed."""
    where = WorkerConfig(scheduler or None, int(workers))
    context = Context(Path(out).parent, where, "off", max_rejected=1.0, log=lambda line: print(line, file=sys.stderr))
    print(run(context, DetectConfig(), Job(source, StubSpec(kind), Path(out), retry_rejected=mode == "retry")))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import stub_networks  # what travels to workers must not be __main__'s

    stub_networks.main(*sys.argv[1:])
