"""What a run can be told. Each option is declared here once; the command line is generated from
it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skipsr.errors import SettingsError

AUTO = "auto"  # in place of a model's name: whatever suits the weights that were given
Codec = Literal["h264", "h265", "av1", "ffv1", "prores"]
Device = str  # "auto", or whatever `torch.device` takes
DType = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipSettings:
    """How much of a model is computed, and where."""

    threshold: float | None = None
    """Compute a part of the picture when its predicted need reaches this, 0 to 1; lower computes
    more. By default what the model was made for, 0.5 for seedvr2."""
    budget: float | None = None
    """Share of the dense model's compute to spend, above 0 and up to 1, where it is needed most:
    the share of each window's tokens, or of a recurrent model's FLOPs over ordinary footage."""
    tau: float | None = None
    """Error up to which plain upsampling serves a token, mean squared, pixels in 0 to 1; by default
    the paper's 0.0002. For models whose predictor was trained for any."""
    patches: bool = False
    """For recurrent models: enlarge overlapping patches of 48 pixels each on its own, as SkipVSR's
    paper does, instead of choosing tiles in whole frames; what lies beyond a patch is not seen."""
    dense: bool = False
    """Compute everything: the plain backbone, for comparison."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise SettingsError(f"--threshold {self.threshold:g} is outside 0 to 1")
        if self.budget is not None and not 0 < self.budget <= 1:
            raise SettingsError(f"--budget {self.budget:g} is not above 0 and up to 1")
        if self.threshold is not None and self.budget is not None:
            raise SettingsError("give --threshold or --budget, not both")
        for name, value in (("threshold", self.threshold), ("budget", self.budget)):
            if self.dense and value is not None:
                raise SettingsError(f"--dense computes everything: leave out --{name}")
        if self.tau is not None and not 0 < self.tau <= 1:
            raise SettingsError(f"--tau {self.tau:g} is not above 0 and up to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """How a model is loaded and run."""

    device: Device = "auto"
    """Where to compute: auto, cpu, cuda, cuda:1, mps."""
    dtype: DType = "auto"
    """Precision of the networks; auto takes bfloat16 where the device is fast at it."""
    steps: int | None = None
    """Sampling steps; by default what the model was trained for."""
    weights: Path | None = None
    """Folder that holds the model's files, for models that are not bundled."""

    def __post_init__(self) -> None:
        if self.steps is not None and not 1 <= self.steps <= 1000:
            raise SettingsError(f"--steps {self.steps} is outside 1 to 1000")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """What to make of one file."""

    scale: float | None = None
    """Enlarge both sides by this factor (4 when --height is not given either)."""
    height: int | None = None
    """Height of the result in pixels, instead of --scale; the width follows."""
    seed: int = 0
    """Seed of the noise; the same seed gives the same result."""
    window: int | None = None
    """Frames processed together; by default as many as suit the model and the output size."""
    overlap: int | None = None
    """Frames that neighbouring windows share and cross-fade; by default what suits the model (5 for
    seedvr2), or 1 for short windows."""
    codec: Codec = "h264"
    """Codec of a video result."""
    crf: int | None = None
    """Quality of the codec, lower is better (h264 16, h265 18, av1 24 by default)."""
    overwrite: bool = False
    """Replace the output if it exists."""

    def __post_init__(self) -> None:
        if self.scale is not None and self.height is not None:
            raise SettingsError("give --scale or --height, not both")
        if self.scale is not None and not 0.1 <= self.scale <= 16:
            raise SettingsError(f"--scale {self.scale:g} is outside 0.1 to 16")
        if self.height is not None and not 16 <= self.height <= 16384:
            raise SettingsError(f"--height {self.height} is outside 16 to 16384 pixels")
        if self.crf is not None and not 0 <= self.crf <= 63:
            raise SettingsError(f"--crf {self.crf} is outside 0 to 63")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the result `(height, width)` for a source of this size, before any codec
        rounding."""
        if self.height is not None:
            return self.height, max(1, round(width * self.height / height))
        scale = 4.0 if self.scale is None else self.scale
        return max(1, round(height * scale)), max(1, round(width * scale))
