"""Settings of a run, whatever the model.

Each option is declared here once; the command line is generated from it, and from each family's own
in `backbones/*/options.py`.
"""

import math
import operator
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from numbers import Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from skipsr.errors import SettingsError
from skipsr.fields import KINDS, choices
from skipsr.times import Trim, as_rate, as_seconds, told

AUTO = "auto"  # in place of a model's name: whatever suits the weights that were given
Codec = Literal["h264", "h265", "av1", "ffv1", "prores"]
Device = str  # "auto", or whatever `torch.device` takes
DType = Literal["auto", "float32", "bfloat16", "float16"]
Degrade = Literal["bicubic", "bd", "real"]
Deinterlace = Literal["auto", "off"]
_DIALS = ("threshold", "budget", "quality", "speed", "tau")  # each says how much to compute
_SIDES = ("height", "short_side", "long_side")  # of the result, in pixels
_SIZES = ("scale", *_SIDES)  # each says how large the result is
_SEEDS = -(2**63), 2**64 - 1  # what a generator of torch takes


def _number(value: Any) -> float:
    if not isinstance(value, Real):
        raise TypeError
    return value if isinstance(value, int) else float(value)


_MADE: Mapping[Any, Callable[[Any], Any]] = {
    bool: bool,
    int: operator.index,
    float: _number,
    str: os.fspath,
    Path: Path,
}


def check_kinds(settings: object) -> None:
    """Make of a new settings object's values what its fields say, such as a path of a text, and
    integers of NumPy's.

    Raises:
        SettingsError: for values of another type, and words that are none of a field's choices.
    """
    for name, hint in _hints(type(settings)).items():
        value = getattr(settings, name)
        object.__setattr__(settings, name, _as_kind(name, hint, value))


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _as_kind(name: str, hint: Any, value: Any) -> Any:
    kinds = get_args(hint) if get_origin(hint) is UnionType else (hint,)
    if value is None and NoneType in kinds:
        return None
    if listed := choices(hint):
        if value in listed:
            return value
        raise SettingsError(f"`{name}` {value} is none of {', '.join(map(str, listed))}")
    kind, *others = (kind for kind in kinds if kind is not NoneType)
    if others or kind not in _MADE:
        return value
    try:
        if isinstance(value, bool) != (kind is bool):  # a bool is an int otherwise
            raise TypeError
        return _MADE[kind](value)
    except TypeError:
        raise SettingsError(f"`{name}` {value!r} is not {KINDS[kind]}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipSettings:
    """How much of the model to compute, and where."""

    quality: float | None = None
    """From 0, the fastest, to 1, everything computed; at the default of 0.5, what is skipped does
    not show."""
    speed: float | None = None
    """Run the model this many times faster than when computing everything, such as 1.5x, and spend
    that time where it is needed most; an estimate, without reading and writing files."""
    reuse: Literal["auto", "off"] = "auto"
    """Where the picture does not change, reuse the earlier result (auto), or compute it again
    (off)."""
    tau: float | None = None
    """Mean squared error, pixels in 0 to 1, up to which plain upsampling is good enough for a cell;
    by default `quality` chooses it."""
    threshold: float | None = None
    """Compute a part of the picture if the probability that it needs it is at least this, 0 to 1;
    lower values compute more; 0.5 by default."""
    budget: float | None = None
    """Share of the full model's compute to spend, above 0 and up to 1, where it is needed most."""
    dense: bool = False
    """Compute everything: the model without skipping, for comparison."""

    def __post_init__(self) -> None:
        check_kinds(self)
        for name, least, most in (("quality", 0, 1), ("speed", 1, 100), ("threshold", 0, 1)):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise SettingsError(f"`{name}` {value:g} is outside {least} to {most}")
        if self.budget is not None and not 0 < self.budget <= 1:
            raise SettingsError(f"`budget` {self.budget:g} is not above 0 and up to 1")
        if self.tau is not None and not 0 < self.tau <= 1:
            raise SettingsError(f"`tau` {self.tau:g} is not above 0 and up to 1")
        dials = [name for name in _DIALS if getattr(self, name) is not None]
        if len(dials) > 1 and set(dials) != {"tau", "threshold"}:
            raise SettingsError(f"give `{dials[0]}` or `{dials[1]}`, not both")
        if self.dense and dials:
            raise SettingsError(f"`dense` computes everything: leave out `{dials[0]}`")

    @property
    def asked(self) -> dict[str, float]:
        """What says how much to compute, by name; empty where that is left to the model."""
        if self.dense:
            return {"dense": 1.0}
        return {name: getattr(self, name) for name in _DIALS if getattr(self, name) is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a video is encoded, as `JobSettings` says."""

    codec: Codec = "h264"
    crf: int | None = None
    preset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How the model is loaded and run."""

    device: Device = "auto"
    """Device to compute on: auto, cpu, cuda, cuda:1, mps."""
    dtype: DType = "auto"
    """Precision of the networks; auto uses bfloat16 where the device is fast at it."""
    weights: Path | None = None
    """Weights of the model, if they are neither bundled nor fetched, or to use others: a folder, or
    the file with the network."""

    def __post_init__(self) -> None:
        check_kinds(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """How one file is processed."""

    scale: float | None = None
    """Factor by which to enlarge width and height (4 if no size is given either)."""
    height: int | None = None
    """Height of the result in pixels, instead of `scale`; the width keeps the aspect ratio."""
    short_side: int | None = None
    """Shorter side of the result in pixels, instead of `scale`: 1080 gives 1920x1080 for 16:9, and
    1080x1920 for the same held upright."""
    long_side: int | None = None
    """Longer side of the result in pixels, instead of `scale`; with `short_side` too, the smaller
    of the two results."""
    start: float | str | None = None
    """Leave out what is before this time of the input: seconds, or a time such as 1:30, counted
    from its first frame."""
    end: float | str | None = None
    """Leave out what comes from this time of the input on, counted in the same way."""
    fps: float | str | None = None
    """Frames per second of a folder of images, such as 25, 23.976 or 24000/1001; 24 by default."""
    seed: int = 0
    """Random seed for the noise; the same seed gives the same result."""
    window: int | None = None
    """Frames processed together; by default chosen for the model and the output size."""
    overlap: int | None = None
    """Frames shared and cross-faded between neighbouring windows; by default what suits the model
    (5 for seedvr2), 1 for short windows, or 0 for those of 2."""
    shots: str = "auto"
    """Process each shot separately: shots are detected (auto), or listed in a file, one first frame
    or time per line, as skipsr shots writes it; off treats the input as one shot."""
    max_memory: str | None = None
    """Memory limit, such as 3GiB or 800MiB: GPU memory if a GPU is used. By default what is free
    there, or without a GPU 60 % of what is free (skipvsr: and at most 8 GiB)."""
    codec: Codec = "h264"
    """Codec of the output video."""
    deinterlace: Deinterlace = "auto"
    """Deinterlace interlaced frames before anything else (auto), or take them as they are (off)."""
    crf: int | None = None
    """Constant rate factor of the encoder; lower is better (default: h264 16, h265 18, av1 24)."""
    preset: str | None = None
    """How long the encoder takes for a smaller file: ultrafast to placebo for h264 and h265, 13 to
    0 for av1 (by default the encoder's own: medium, or for av1 as a rule 8)."""
    segment: float | None = None
    """Save finished frames to OUTPUT.job after every so many seconds of video, so that an
    interrupted job can resume from there (by default 10, or fewer if those may take more than five
    minutes). Shorter videos, or with 0 all, are not saved in parts."""
    restart: bool = False
    """Start over, even if part of this job was saved earlier."""
    overwrite: bool = False
    """Replace the output if it exists."""

    def __post_init__(self) -> None:
        check_kinds(self)
        for name in ("start", "end"):
            if (time := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(as_seconds(name, time)))
        if self.fps is not None:
            as_rate(self.fps)
        start, end = self.trim
        if end is not None and end <= (start or 0):
            raise SettingsError(
                f"`end` {told(end)} is not after `start` {told(start or 0)}: give a later one"
            )
        sizes = self.sizes
        if len(sizes) > 1 and sizes != ["short_side", "long_side"]:
            raise SettingsError(f"give `{sizes[0]}` or `{sizes[1]}`, not both")
        if self.scale is not None and not 0.1 <= self.scale <= 16:
            raise SettingsError(f"`scale` {self.scale:g} is outside 0.1 to 16")
        for name in _SIDES:
            if (side := getattr(self, name)) is not None and not 16 <= side <= 16384:
                raise SettingsError(f"`{name}` {side} is outside 16 to 16384 pixels")
        if self.max_memory is not None:
            _bytes(self.max_memory)
        if self.segment is not None and not 0 <= self.segment < math.inf:
            raise SettingsError(f"`segment` {self.segment:g} is no length: give seconds, or 0")
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise SettingsError(f"`crf` {self.crf} is outside 0 to 63")
        if self.window is not None and self.window < 1:
            raise SettingsError(f"`window` {self.window} is too small: give at least 1 frame")
        if not _SEEDS[0] <= self.seed <= _SEEDS[1]:
            raise SettingsError(
                f"`seed` {self.seed} is outside -2^63 to 2^64 - 1: give a smaller one"
            )

    @property
    def encoding(self) -> Encoding:
        """How a video is encoded."""
        return Encoding(codec=self.codec, crf=self.crf, preset=self.preset)

    @property
    def trim(self) -> Trim:
        """`start`, None also for the very beginning, and `end`, in seconds."""
        start, end = (None if at is None else as_seconds("at", at) for at in (self.start, self.end))
        return start or None, end

    @property
    def rate(self) -> Fraction | None:
        """`fps` as a fraction."""
        return None if self.fps is None else as_rate(self.fps)

    @property
    def memory(self) -> int | None:
        """`max_memory` in bytes."""
        return None if self.max_memory is None else _bytes(self.max_memory)

    @property
    def sizes(self) -> list[str]:
        """Those settings that are given which say how large the result is."""
        return [name for name in _SIZES if getattr(self, name) is not None]

    def size(self, height: int, width: int, step: int = 1) -> tuple[int, int]:
        """The result's `(height, width)` for a source of this size: the nearest multiples of
        `step`."""
        held = height, min(height, width), max(height, width)
        asked = zip((self.height, self.short_side, self.long_side), held, strict=True)
        scales = (Fraction(side, has) for side, has in asked if side is not None)
        scale = min(scales, default=Fraction(self.scale or 4))
        tall, wide = (max(1, math.floor(side * scale / step + Fraction(1, 2))) * step
                      for side in (height, width))  # fmt: skip
        return tall, wide


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSettings:
    """How files are distributed over workers."""

    devices: str = "all"
    """Workers, each with its own copy of the model: cuda:0,cuda:1 is one on each of these GPUs,
    cpu:4 is four that share the CPU's threads; all is one per GPU, or one on the CPU."""
    suffix: str | None = None
    """File extension of output videos; by default .mp4, or the first that supports `codec`. Images
    become .png."""
    retries: int = 1
    """How often to retry a file, or a section of a long video, whose worker died, out of memory or
    killed."""
    ray: str | None = None
    """Run on a Ray cluster: its address, auto, or local to start one here. All its machines need
    skipsr installed and must see the files under the same paths."""

    def __post_init__(self) -> None:
        check_kinds(self)
        if self.retries < 0:
            raise SettingsError(f"`retries` {self.retries} is less than none: give 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSettings:
    """Which clips to evaluate on, and how their LR versions are made."""

    scale: int = 4
    """Upscaling factor, 2 to 8; LR clips that are made are smaller by this factor."""
    degrade: Degrade | None = None
    """How LR clips are made from the ground truth: antialiased bicubic, Gaussian blur and every
    scale-th pixel (bd), or a random chain of real-world degradations (real); by default the LR clip
    that is there, or bicubic."""
    frames: int = 25
    """Read this many frames of every clip."""
    only: str = ""
    """Use only clips whose name contains this."""
    seed: int = 0
    """Random seed for the models' noise, real-world degradations, and the order in a study."""

    def __post_init__(self) -> None:
        check_kinds(self)
        if not 2 <= self.scale <= 8:
            raise SettingsError(f"`scale` {self.scale} is outside 2 to 8")
        if self.frames < 1:
            raise SettingsError(f"`frames` {self.frames} is too few: give at least 1")
        if self.degrade == "bd" and self.scale != 4:
            raise SettingsError(f"`degrade` bd is defined for `scale` 4, not {self.scale}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSettings(ClipSettings):
    """What to measure, and on which clips."""

    metrics: tuple[str, ...] = ()
    """Metrics to measure, by name; by default all that apply and need no extra library."""

    def __post_init__(self) -> None:
        ClipSettings.__post_init__(self)
        if len(set(self.metrics)) < len(self.metrics):
            raise SettingsError(f"`metrics` names one twice: {' '.join(self.metrics)}")


def _bytes(size: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])i?B?", size.strip(), re.IGNORECASE)
    if match is None:
        raise SettingsError(f"`max_memory` {size} is no size: give one such as 3GiB or 800MiB")
    return int(float(match[1]) * 1024 ** (1 + "KMGT".index(match[2].upper())))
