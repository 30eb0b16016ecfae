"""Photos in, detections out: a bundle made ready to run fast on one device."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ssd.bundle import Bundle
from ssd.containers import Detections
from ssd.decoding import Decoder
from ssd.model import SSD
from ssd.resize import resize_photo

__all__ = ["Detector", "supports_bfloat16"]


class Detector:
    """A network in evaluation, its batch norms folded into its convolutions, in the number format that is fastest.

    `bfloat16` is what the device has unless it is said: half the bits and, where the processor multiplies them, a
    multiple of the speed, for scores that differ in the third digit.
    """

    def __init__(self, bundle: Bundle, device: str | torch.device = "cpu", bfloat16: bool | None = None) -> None:
        half = supports_bfloat16(device) if bfloat16 is None else bfloat16
        self.device, self.dtype = torch.device(device), torch.bfloat16 if half else torch.float32
        self.input_size = bundle.model.config.priors.input_size
        model = _fold_batch_norm(copy.deepcopy(bundle.model).eval())
        model = model.to(self.device, self.dtype)
        self.model: SSD = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.decoder = Decoder(bundle.model.config.priors, bundle.decode).to(self.device)

    def __call__(self, photos: Sequence[Tensor]) -> list[Detections]:
        """Return the detections of each photo, uint8 (3, H, W) of any size, in its own pixels."""
        if not photos:
            return []
        outputs = self.outputs(torch.cat([self.inputs_of(photo) for photo in photos]))
        return self.detections_of(outputs, [(photo.shape[-2], photo.shape[-1]) for photo in photos])

    def inputs_of(self, photo: Tensor) -> Tensor:
        """Return a photo as the network takes it, uint8 (1, 3, height, width)."""
        return resize_photo(photo, *self.input_size)[None]

    @torch.inference_mode()
    def detect(self, inputs: Tensor) -> list[Detections]:
        """Return the detections of each input, uint8 (B, 3, height, width) of the model's size, in its pixels."""
        return self.decoder(*self.outputs(inputs))  # type: ignore[no-any-return]

    @torch.inference_mode()
    def outputs(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return offsets (B, P, 4) and logits (B, P, C) of such inputs."""
        photos = inputs.to(self.device, non_blocking=self.device.type != "cpu").float()
        images = self.model.normalise(photos).to(self.dtype, memory_format=torch.channels_last)
        offsets, logits = self.model(images)
        return offsets, logits

    def detections_of(self, outputs: tuple[Tensor, Tensor], sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Return the detections of a batch in pixels of photos of these sizes (height, width)."""
        return self.scale_to_photos(self.decoder(*outputs), sizes)

    def scale_to_photos(self, detections: Sequence[Detections], sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Return detections in pixels of the input as such in pixels of photos of these sizes (height, width)."""
        if not detections:
            return []
        height, width = self.input_size
        counts = [len(one) for one in detections]
        photos = torch.tensor([[w, h] * 2 for h, w in sizes]).repeat_interleave(torch.tensor(counts), dim=0)
        boxes, labels, scores = (
            torch.cat([getattr(one, name) for one in detections]) for name in ("boxes", "labels", "scores")
        )
        # Multiplied before divided, so that a box that ends with the input ends exactly with the photo.
        return Detections.split(boxes * photos / torch.tensor([width, height] * 2), labels, scores, counts)


def supports_bfloat16(device: str | torch.device) -> bool:
    """Return whether a device multiplies bfloat16 in hardware; of processors, those of x86 are known."""
    if torch.device(device).type == "cpu":
        # What MKLDNN calls supported it also emulates, on any AVX-512; and builds for other processors lack it.
        return any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def _fold_batch_norm(model: SSD) -> SSD:
    """Return the model with every batch norm that follows a convolution made part of it."""
    for layers in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        for place in range(len(layers) - 1):
            first, second = layers[place], layers[place + 1]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                layers[place], layers[place + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return model
