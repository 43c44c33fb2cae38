"""skipsr: video super-resolution that computes only where it shows.

The eight names below are the public interface; each is imported on first use, so that importing the
package (and printing the command line's help) does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skipsr.clip import Clip
    from skipsr.errors import SkipsrError
    from skipsr.loading import list_models, load_upscaler
    from skipsr.pipeline.job import upscale_video
    from skipsr.settings import JobSettings, RuntimeSettings, SkipSettings

__all__ = [
    "Clip",
    "JobSettings",
    "RuntimeSettings",
    "SkipSettings",
    "SkipsrError",
    "list_models",
    "load_upscaler",
    "upscale_video",
]
__version__ = "0.1.0"

_HOMES = {
    "Clip": "skipsr.clip",
    "JobSettings": "skipsr.settings",
    "RuntimeSettings": "skipsr.settings",
    "SkipSettings": "skipsr.settings",
    "SkipsrError": "skipsr.errors",
    "list_models": "skipsr.loading",
    "load_upscaler": "skipsr.loading",
    "upscale_video": "skipsr.pipeline.job",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'skipsr' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
