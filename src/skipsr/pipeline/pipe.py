"""One uncompressed stream in, one out: for whoever reads and encodes with programs of their own."""

from collections.abc import Callable
from typing import BinaryIO

from skipsr.backbones.contract import Limits, MemoryPlan, Upscaler
from skipsr.pipeline.job import Progress, enlarged
from skipsr.pipeline.plan import plan_frames
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
        watch: told as frames are written, and how many are expected: 0 where nobody knows.

    Returns:
        How many frames were written.

    Raises:
        MediaError: for what is no YUV4MPEG2 or ends within a frame, once the whole ones before it
            are written; and where whoever reads `target` has gone.
        SettingsError: for settings that do not fit.
    """
    with PipeReader(source, settings.deinterlace) as reader:
        plan = plan_frames(reader.info, limits, settings, _STEP)
        upscaler = load(plan.memory)
        writer = PipeWriter(target, reader.info, plan.size, reader.depth)
        written = 0
        try:
            for frame in enlarged(reader.frames(), upscaler, plan):
                writer.write(frame)
                written += 1
                expected = reader.info.frames
                watch(Progress("write", written, max(written, expected) if expected else 0))
        except KeyboardInterrupt as error:
            if written:
                error.add_note(f"{written} frame{'s' * (written > 1)} had been written")
            raise
        reader.check_end()
    return written
