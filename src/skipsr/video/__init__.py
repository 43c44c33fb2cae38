"""Video and image files in and out. The only importer of PyAV and Pillow."""

from skipsr.video.formats import (
    check_format,
    check_target,
    default_suffix,
    side_step,
    source_kind,
    target_kind,
)
from skipsr.video.parts import Parts, open_parts
from skipsr.video.pipe import PipeReader, PipeWriter
from skipsr.video.probe import SourceInfo
from skipsr.video.read import Source, open_source, probe
from skipsr.video.trim import Cut
from skipsr.video.write import Target, frames_info, open_target, remove_leftovers

__all__ = [
    "Cut",
    "Parts",
    "PipeReader",
    "PipeWriter",
    "Source",
    "SourceInfo",
    "Target",
    "check_format",
    "check_target",
    "default_suffix",
    "frames_info",
    "open_parts",
    "open_source",
    "open_target",
    "probe",
    "remove_leftovers",
    "side_step",
    "source_kind",
    "target_kind",
]
