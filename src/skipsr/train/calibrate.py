"""Thresholds for a trained model's budgets, found on clips of a folder."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from skipsr.backbones import family
from skipsr.data.benchmarks import list_items
from skipsr.data.degrade import Degradation
from skipsr.data.sources import IMAGES
from skipsr.errors import MediaError, SettingsError
from skipsr.loading import open_weights
from skipsr.train.run import export
from skipsr.video import open_source

_CLEAN = Degradation(clean=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationClips:
    """High-resolution clips: videos and folders of frames, in a folder as `list_items` knows it.

    Raises:
        SettingsError: for no clips, or clips of one frame, in which nothing can be skipped.
    """

    data: Path
    clips: int = 12  # at most; of more, some from the whole list
    frames: int = 12  # of each, at most

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise SettingsError(f"`clips` {self.clips} is less than one")
        if self.frames < 2:
            raise SettingsError(f"`frames` {self.frames} is less than two: the first runs in full")

    def paths(self) -> list[Path]:
        """The chosen clips.

        Raises:
            MediaError: when the folder holds none, or has a layout that is not known.
        """
        items = [item.truth for item in list_items(self.data)]
        found = [p for p in items if p is not None and p.suffix.lower() not in IMAGES]
        if not found:
            raise MediaError(f"{self.data} holds no videos or folders of frames to calibrate on")
        count = min(self.clips, len(found))
        return [found[i * len(found) // count] for i in range(count)]

    def read(self, smallest: int) -> Iterator[Tensor]:
        """LR clips `t 3 h w`, shrunk by four as the clean samples of training are.

        Raises:
            MediaError: for a clip that cannot be read, has one frame, or is below `smallest` pixels
                a side when shrunk.
        """
        for path in self.paths():
            with open_source(path) as source:
                height, width = source.info.height, source.info.width
                if min(height, width) < _CLEAN.scale * smallest:
                    raise MediaError(f"{path}: {width}x{height} is too small to calibrate on")
                clips = itertools.islice(source.clips(1, 0), self.frames)
                frames = torch.cat([_shrink(clip.frames) for clip in clips])
            if len(frames) < 2:
                raise MediaError(f"{path}: a single frame is no clip to calibrate on")
            yield frames


def calibrate_model(
    model: str,
    weights: Path,
    clips: CalibrationClips,
    out: Path,
    *,
    device: torch.device,
    fit: bool = False,
) -> Tensor:
    """Write `weights` to `out` with the thresholds that meet budgets on `clips`.

    Args:
        model: `family:preset`.
        weights: a file with the whole network and its routers, or a folder with one.
        fit: find the routers, too, in closed form; then the weights need hold none.
        out: a `.safetensors` file that is not there yet.

    Returns:
        Budgets, as rising shares of the dense compute, and their thresholds: `k 2`.

    Raises:
        SettingsError: for an unknown model, one without thresholds, or an `out` that cannot be.
        WeightsError: when the weights do not fit, or have no routers.
        MediaError: when the clips cannot be used.
    """
    backbone, preset = family(model)
    if backbone.calibrate is None:
        raise SettingsError(f"{model} needs no thresholds for its budgets: use it as it is")
    _check_out(out)
    count = len(clips.paths())
    frames = clips.read(backbone.limits(backbone.presets[preset]).smallest)
    found = backbone.calibrate(preset, open_weights(weights, backbone), frames, device, fit=fit)
    metadata = {"model": model, "calibrated": f"{count} clips of up to {clips.frames} frames"}
    export(found.network, out, metadata)
    return found.thresholds


def _check_out(out: Path) -> None:
    if out.suffix != ".safetensors":
        raise SettingsError(f"`out` {out} is no .safetensors file: give it that suffix")
    if not out.parent.is_dir():
        raise SettingsError(f"`out` {out}: there is no folder {out.parent}; make it first")
    if out.exists():
        raise SettingsError(f"`out` {out} is there already; give another name")


def _shrink(frames: Tensor) -> Tensor:
    """`t 3 h w` -> `t 3 h/4 w/4`, cut to sides that four divides."""
    h, w = (side - side % _CLEAN.scale for side in frames.shape[2:])
    whole = rearrange(frames[..., :h, :w], "t c h w -> 1 c t h w")
    return rearrange(_CLEAN(whole, torch.Generator()), "1 c t h w -> t c h w")
