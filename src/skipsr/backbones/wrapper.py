"""A base for upscalers that wrap another one."""

from collections.abc import Mapping
from typing import Any

from skipsr.backbones.contract import Upscaled, Upscaler, arrange
from skipsr.clip import Clip
from skipsr.limits import Limits, MemoryPlan
from skipsr.skipping.compute_map import ComputeMap


class UpscalerWrapper:
    """Delegates to another upscaler; subclasses override what differs."""

    def __init__(self, inner: Upscaler) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def limits(self) -> Limits:
        return self.inner.limits

    @property
    def device(self) -> str:
        return self.inner.device

    @property
    def dtype(self) -> str:
        return self.inner.dtype

    @property
    def asked(self) -> Mapping[str, float]:
        return self.inner.asked

    def identity(self) -> Mapping[str, Any]:
        return self.inner.identity()

    def arrange(self, plan: MemoryPlan | None) -> None:
        arrange(self.inner, plan)

    def upscale(self, clip: Clip, size: tuple[int, int], *, seed: int = 0) -> Upscaled:
        return self.inner.upscale(clip, size, seed=seed)

    def compute_map(self, clip: Clip, size: tuple[int, int]) -> ComputeMap:
        return self.inner.compute_map(clip, size)

    def upsample(self, clip: Clip, size: tuple[int, int]) -> Clip:
        return self.inner.upsample(clip, size)
