"""One uncompressed stream in, one out: for whoever reads and encodes with programs of their own."""

from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO

from skipsr.backbones.contract import Limits, MemoryPlan, Upscaler
from skipsr.pipeline.job import Progress, enlarged
from skipsr.pipeline.plan import plan_windows, result_size
from skipsr.settings import JobSettings
from skipsr.video import PipeReader, PipeWriter

_STEP = 2  # colour may be stored at half resolution


def upscale_pipe(
    source: BinaryIO,
    target: BinaryIO,
    limits: Limits,
    load: Callable[[MemoryPlan | None], Upscaler],
    settings: JobSettings,
    watch: Callable[[Progress], None] = lambda _: None,
) -> int:
    """Enlarge YUV4MPEG2, one frame out for each that comes in, in memory that does not grow.

    Args:
        limits: of the model.
        load: loads it, once the size of the frames is known, as they are to be run.
        settings: those that count in `upscale_frames`, and `deinterlace`.
        watch: told as frames are written; how many will come nobody knows.

    Returns:
        How many frames were written.

    Raises:
        MediaError: for what is no YUV4MPEG2, and where whoever reads `target` has gone.
        SettingsError: for settings that do not fit.
    """
    with PipeReader(source, settings.deinterlace) as reader:
        info = reader.info
        low = info.height, info.width
        size = result_size(*low, limits, settings, _STEP)
        window, overlap, memory = plan_windows(low, size, limits, settings)
        settings = replace(settings, window=window, overlap=overlap)
        upscaler = load(memory)
        written = 0
        with PipeWriter(target, info, size) as writer:
            for frame in enlarged(reader.frames(), upscaler, settings, _STEP):
                writer.write(frame)
                written += 1
                watch(Progress("write", written, written))
    target.flush()
    return written
