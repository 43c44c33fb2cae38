"""What is compared: plain upsampling, models run as users run them, the autoencoder's ceiling."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from skipsr.backbones.contract import Upscaler
from skipsr.backbones.trainable import Denoiser
from skipsr.clip import Clip, extend
from skipsr.errors import MediaError, SettingsError
from skipsr.evaluation.samples import Sample, read_first, write_low
from skipsr.nn.resize import resize_bicubic
from skipsr.pipeline.job import run_job
from skipsr.pipeline.plan import plan_job
from skipsr.settings import JobSettings
from skipsr.skipping.compute_map import ComputeMap
from skipsr.video import open_source

BICUBIC = "bicubic"
RECONSTRUCTION = "reconstruction"


@dataclass(frozen=True, slots=True)
class WindowMask:
    """The mask of one window: what was computed of the frames `[start, end)`."""

    start: int
    compute_map: ComputeMap

    @property
    def end(self) -> int:
        return self.start + len(self.compute_map.fractions)

    def cells(self, frame: int) -> Tensor:
        """The mask of one frame of the source, bool `rows columns`, True = computed."""
        return self.compute_map.keep[frame - self.start]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodResult:
    """What a method made of a sample, and at what cost."""

    frames: Tensor  # t 3 h w in [0, 1]
    masks: tuple[WindowMask, ...] = ()
    computed: float | None = None
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])  # per stage, and total


def run_bicubic(sample: Sample) -> MethodResult:
    """Plain upsampling."""
    return MethodResult(frames=resize_bicubic(sample.low, sample.size).cpu())


def run_model(sample: Sample, upscaler: Upscaler, seed: int) -> MethodResult:
    """The file pipeline, from PNG files to FFV1 and read back: what users get."""
    masks: list[WindowMask] = []
    settings = JobSettings(scale=float(sample.scale), codec="ffv1", seed=seed, shots="off")
    with tempfile.TemporaryDirectory() as name:
        target = Path(name) / "high.mkv"
        plan = plan_job(write_low(sample, Path(name)), target, upscaler.limits, settings)
        report = run_job(
            plan, upscaler, note=lambda r: masks.append(WindowMask(r.clip.start, r.compute_map))
        )
        frames = read_first(target, len(sample.low))
    assert frames.shape == (len(sample.low), 3, *sample.size), frames.shape
    return MethodResult(
        frames=frames,
        masks=tuple(masks),
        computed=report.computed,
        seconds=report.seconds,
    )


def find_results(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """The files of another program's results, one for each clip, named as the clips.

    Raises:
        MediaError: when there is no folder, or no file or several for a clip, or one is no video or
            image.
    """
    if not folder.is_dir():
        raise MediaError(f"{folder} is no folder: `results` takes a folder with a file per clip")
    found: dict[str, Path] = {}
    for name in names:
        files = [p for p in sorted(folder.iterdir()) if name in (p.name, p.stem)]
        if len(files) != 1:
            count = "no file" if not files else f"{len(files)} files"
            raise MediaError(f"{folder} has {count} named {name}: give one for each clip")
        open_source(files[0]).close()
        found[name] = files[0]
    return found


def read_results(sample: Sample, path: Path) -> MethodResult:
    """What another program made of a sample's clip, cropped as its truth is.

    Raises:
        MediaError: when it is shorter, smaller, or larger than the clip's at this scale.
    """
    frames = read_first(path, len(sample.low))
    t, _, height, width = frames.shape
    h, w = sample.size
    most_h, most_w = (side + sample.scale - 1 for side in sample.whole)  # LR sides may be rounded
    if t < len(sample.low) or not (h <= height <= most_h and w <= width <= most_w):
        raise MediaError(
            f"{path} has {t} frames of {width}x{height}: {len(sample.low)} of {w}x{h} are needed"
        )
    return MethodResult(frames=frames[:, :, :h, :w])


@torch.inference_mode()
def run_reconstruction(sample: Sample, upscaler: Upscaler) -> MethodResult:
    """decode(encode(truth)) by the model's autoencoder: the best its transformer could reach.

    Raises:
        ValueError: for a sample without truth.
        SettingsError: for a model without an autoencoder of its own.
    """
    if sample.truth is None:
        raise ValueError(f"{sample.name} has no truth to reconstruct")
    model = denoiser_of(upscaler, wanted_by="reconstruct")
    latent = model.encode(pad(sample.truth, upscaler))
    return MethodResult(frames=trim(model.decode(latent, pad_base(sample, upscaler)), sample.truth))


def denoiser_of(upscaler: Upscaler, *, wanted_by: str | None = None) -> Denoiser:
    """The network behind an upscaler.

    Args:
        wanted_by: the setting that asks for it, if it can be left out.

    Raises:
        SettingsError: when it has none that encodes, scores and decodes.
    """
    model = getattr(upscaler, "model", None)
    if not isinstance(model, Denoiser):
        mend = f"leave out `{wanted_by}`, or give" if wanted_by else "give"
        raise SettingsError(
            f"{upscaler.name} has no autoencoder to look into: {mend} a diffusion model as `model`"
        )
    return model


def pad(frames: Tensor, upscaler: Upscaler) -> Tensor:
    """`t 3 h w` as `1 3 t' h' w'` on the model's device, in sizes that its network takes."""
    h, w = frames.shape[2:]
    limits = upscaler.limits
    size = limits.pad_side(h), limits.pad_side(w)
    whole = extend(frames.to(upscaler.device), limits.pad_frames(len(frames)), size)
    return rearrange(whole, "t c h w -> 1 c t h w")


def pad_base(sample: Sample, upscaler: Upscaler) -> Tensor:
    """The upsampled LR clip, padded as the model sees it at run time: `1 3 t' h' w'`."""
    low = Clip(sample.low.to(upscaler.device))
    return pad(upscaler.upsample(low, sample.size).frames, upscaler)


def trim(frames: Tensor, like: Tensor) -> Tensor:
    """`1 3 t' h' w'` back to the size of `like`, `t 3 h w` in [0, 1], on the CPU."""
    t, _, h, w = like.shape
    whole = rearrange(frames[:, :, :t, :h, :w], "1 c t h w -> t c h w")
    return whole.float().clamp(0, 1).cpu().contiguous()
