"""Video and image files in and out. The only importer of PyAV and Pillow."""

from skipsr.video.formats import check_target, target_size
from skipsr.video.probe import SourceInfo
from skipsr.video.read import Source, open_source
from skipsr.video.write import Target, open_target

__all__ = [
    "Source",
    "SourceInfo",
    "Target",
    "check_target",
    "open_source",
    "open_target",
    "target_size",
]
