"""Show what would be skipped, drawn over the frames."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from einops import rearrange

from skipsr.backbones.contract import Upscaled, Upscaler
from skipsr.clip import Clip, extend
from skipsr.limits import Limits
from skipsr.pipeline.job import Progress
from skipsr.pipeline.plan import JobPlan
from skipsr.pipeline.stream import Tally, stream
from skipsr.pipeline.work import open_result
from skipsr.skipping.compute_map import ComputeMap
from skipsr.skipping.oracle import oracle_keep
from skipsr.skipping.route import Route, over_pixels
from skipsr.timeline import TOKEN_FRAMES, TOKEN_SIDE
from skipsr.tracing import Trace
from skipsr.video import open_source

_TINT = (0.1, 0.45, 1.0)  # skipped cells turn blue
_STRENGTH = 0.55


class Oracle:
    """The true mask, told as upscalers do: the clip is the HR truth itself (paper Eq. 1). Its size
    stays."""

    limits = Limits(step=TOKEN_FRAMES, side=TOKEN_SIDE, smallest=TOKEN_SIDE)

    def compute_map(self, clip: Clip, size: tuple[int, int]) -> ComputeMap:
        whole = self.limits.pad_side(size[0]), self.limits.pad_side(size[1])
        frames = extend(clip.frames, self.limits.pad_frames(len(clip)), whole)
        keep = oracle_keep(rearrange(frames, "t c h w -> 1 c t h w"))[0]
        return ComputeMap.of_route(Route(keep), len(clip))

    def upsample(self, clip: Clip, size: tuple[int, int]) -> Clip:
        return Clip(extend(clip.frames, len(clip), size), clip.start)  # codecs want even sides


@dataclass(frozen=True, slots=True)
class MaskReport:
    """What a mask says of a whole source."""

    model: str
    frames: int
    width: int
    height: int
    skipped: float  # share of the model's units: tokens, or blocks of tiles

    def to_json(self) -> str:
        """One line."""
        return json.dumps({**asdict(self), "skipped": round(self.skipped, 4)})


def draw_masks(
    plan: JobPlan, masker: Upscaler | Oracle, name: str, watch: Callable[[Progress], None]
) -> MaskReport:
    """Write the upsampled source, tinted the bluer the more of a cell is skipped.

    Raises:
        MediaError, SettingsError: as `upscale_video`.
    """
    tally, written = Tally(), 0
    # what is skipped is to be seen where the source is transparent, too
    plan = replace(plan, source=replace(plan.source, transparent=False))

    def draw(clip: Clip) -> Upscaled:
        return draw_mask(masker, clip, plan.size)

    def tell(stage: str) -> None:
        watch(Progress(stage, written, max(written, plan.source.frames)))

    def count(result: Upscaled) -> None:
        tally.add(result.compute_map)

    with Trace(tell), open_source(plan.source) as reader, open_result(plan) as writer:
        for joined in stream(reader.clips(plan.window, plan.overlap, plan.shots), draw, count):
            writer.write(joined.clip)
            written = writer.written
    return MaskReport(name, written, plan.size[1], plan.size[0], 1 - tally.fraction)


def draw_mask(masker: Upscaler | Oracle, clip: Clip, size: tuple[int, int]) -> Upscaled:
    """A clip, upsampled to `size`, with what would be skipped of it drawn over it."""
    computed = masker.compute_map(clip, size)
    return Upscaled(tint(masker.upsample(clip, size), computed), computed)


def tint(clip: Clip, computed: ComputeMap) -> Clip:
    """`clip` with its cells tinted in proportion to what was skipped of them."""
    weight = _STRENGTH * over_pixels(1 - computed.fractions, computed.cell_size, clip.size)[:, None]
    colour = torch.tensor(_TINT, dtype=torch.float32, device="cpu").reshape(1, 3, 1, 1)
    return Clip(torch.lerp(clip.frames, colour.expand_as(clip.frames), weight), clip.start)
