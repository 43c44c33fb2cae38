"""skipsr: video super-resolution that computes only where it shows.

The names below are the public interface; each is imported on first use, so that importing the
package (and printing the command line's help) does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skipsr.backbones.contract import Upscaled, Upscaler
    from skipsr.catalog import fetch_model, list_models
    from skipsr.clip import Clip
    from skipsr.errors import Cancelled, SkipsrError
    from skipsr.loading import load_upscaler
    from skipsr.pipeline.job import Progress, Report, run_job, upscale_frames, upscale_video
    from skipsr.pipeline.plan import JobPlan, plan_job
    from skipsr.settings import JobSettings, RuntimeSettings, SkipSettings

__all__ = [
    "Cancelled",
    "Clip",
    "JobPlan",
    "JobSettings",
    "Progress",
    "Report",
    "RuntimeSettings",
    "SkipSettings",
    "SkipsrError",
    "Upscaled",
    "Upscaler",
    "fetch_model",
    "list_models",
    "load_upscaler",
    "plan_job",
    "run_job",
    "upscale_frames",
    "upscale_video",
]
__version__ = "0.1.0"

_HOMES = {
    "Cancelled": "skipsr.errors",
    "Clip": "skipsr.clip",
    "JobPlan": "skipsr.pipeline.plan",
    "JobSettings": "skipsr.settings",
    "Progress": "skipsr.pipeline.job",
    "Report": "skipsr.pipeline.job",
    "RuntimeSettings": "skipsr.settings",
    "SkipSettings": "skipsr.settings",
    "SkipsrError": "skipsr.errors",
    "Upscaled": "skipsr.backbones.contract",
    "Upscaler": "skipsr.backbones.contract",
    "fetch_model": "skipsr.catalog",
    "list_models": "skipsr.catalog",
    "load_upscaler": "skipsr.loading",
    "plan_job": "skipsr.pipeline.plan",
    "run_job": "skipsr.pipeline.job",
    "upscale_frames": "skipsr.pipeline.job",
    "upscale_video": "skipsr.pipeline.job",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'skipsr' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
