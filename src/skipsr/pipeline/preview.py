"""Show what would be skipped: the mask drawn over the frames."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from einops import rearrange, repeat
from torch import Tensor

from skipsr.clip import Clip, extend
from skipsr.errors import MediaError
from skipsr.pipeline.job import Progress, lay_out, open_result
from skipsr.pipeline.seams import crossfade
from skipsr.settings import JobSettings
from skipsr.skipping.oracle import SIDE, TIME, oracle_keep
from skipsr.skipping.route import Route
from skipsr.timeline import Limits
from skipsr.tracing import Trace
from skipsr.video import open_source

_TINT = (0.1, 0.45, 1.0)  # skipped cells turn blue
_STRENGTH = 0.55


class Masker(Protocol):
    """Says which tokens of a clip would be computed, and enlarges it plainly to draw on."""

    @property
    def limits(self) -> Limits: ...

    def route(self, clip: Clip, size: tuple[int, int]) -> Route: ...

    def enlarge(self, clip: Clip, size: tuple[int, int]) -> Clip: ...


class Oracle:
    """The true mask: the clip is the HR truth itself (paper Eq. 1). Its size stays."""

    limits = Limits(step=TIME, side=SIDE, smallest=SIDE)

    def route(self, clip: Clip, size: tuple[int, int]) -> Route:
        whole = self.limits.pad_side(size[0]), self.limits.pad_side(size[1])
        frames = extend(clip.frames, self.limits.pad_frames(len(clip)), whole)
        return Route(oracle_keep(rearrange(frames, "t c h w -> 1 c t h w"))[0])

    def enlarge(self, clip: Clip, size: tuple[int, int]) -> Clip:
        return Clip(extend(clip.frames, len(clip), size), clip.start)  # codecs want even sides


@dataclass(frozen=True, slots=True)
class MaskReport:
    """What a mask says of a whole source."""

    model: str
    frames: int
    width: int
    height: int
    skipped: float  # share of tokens

    def to_json(self) -> str:
        """One line."""
        return json.dumps({**asdict(self), "skipped": round(self.skipped, 4)})


def draw_masks(
    source: Path,
    target: Path,
    masker: Masker,
    name: str,
    settings: JobSettings,
    watch: Callable[[Progress], None],
) -> MaskReport:
    """Write the enlarged source with its skipped tokens tinted blue; computed ones stay as they
    are.

    Raises:
        MediaError, SettingsError: as `upscale_video`.
    """
    kept = cells = written = 0
    with open_source(source) as reader:
        layout = lay_out(reader.info, target, masker.limits, settings)
        frames = reader.info.frames

        def drawn() -> Iterator[Clip]:
            nonlocal kept, cells
            for clip in reader.clips(layout.window, layout.overlap):
                route = masker.route(clip, layout.size)
                kept, cells = kept + route.kept, cells + route.keep.numel()
                yield tint(masker.enlarge(clip, layout.size), route)

        def tell(stage: str) -> None:
            watch(Progress(stage, written, max(written, frames)))

        with Trace(tell), open_result(target, reader, layout, settings) as writer:
            for clip in crossfade(drawn()):
                writer.write(clip)
                written = writer.written
    if not cells:
        raise MediaError(f"{source} holds no frame")
    return MaskReport(name, written, layout.size[1], layout.size[0], 1 - kept / cells)


def tint(clip: Clip, route: Route) -> Clip:
    """`clip` with the cells that `route` skips tinted; the grid may reach beyond the clip's
    borders."""
    skipped = frame_mask(~route.keep.cpu())[: len(clip), : clip.size[0], : clip.size[1]]
    weight = rearrange(skipped, "t h w -> t 1 h w") * _STRENGTH
    colour = torch.tensor(_TINT).reshape(1, 3, 1, 1)
    return Clip(torch.lerp(clip.frames, colour.expand_as(clip.frames), weight), clip.start)


def frame_mask(cells: Tensor) -> Tensor:
    """Cells `t h w` as pixels `4(t-1)+1 16h 16w`, float32: the first layer covers one frame, the
    others four."""
    later = repeat(cells[1:], "t h w -> (t s) h w", s=TIME)
    frames = torch.cat((cells[:1], later)).float()
    return repeat(frames, "t h w -> t (h p) (w q)", p=SIDE, q=SIDE)
