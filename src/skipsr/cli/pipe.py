"""`skipsr pipe`: between programs that read and write video."""

import sys
from dataclasses import dataclass
from functools import partial

from skipsr.cli.flags import ModelJob, refuse_given
from skipsr.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class Pipe(ModelJob):
    """Upscale uncompressed video (YUV4MPEG2) from stdin to stdout, between programs such as ffmpeg,
    vspipe, x265 and mpv. Sound and colour tags stay with them."""

    def run(self) -> None:
        of_files = ("start", "end", "fps", "codec", "crf", "preset")
        refuse_given(self.job, of_files, "is for the program that reads or writes the pipe")
        refuse_given(self.job, ("segment", "restart", "overwrite"), "is for files: use upscale")
        if sys.stdin.isatty() or sys.stdout.isatty():
            raise SettingsError(
                "pipe stands between two programs: "
                "ffmpeg -i in.mp4 -f yuv4mpegpipe - | skipsr pipe | ffmpeg -i - out.mp4"
            )
        from skipsr.cli.progress import show_progress
        from skipsr.pipeline.pipe import upscale_pipe

        model = self.find()
        # unbuffered: what is left of a frame would be written on leaving, which waits for a reader
        out = open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115
        ends = sys.stdin.buffer, out
        with show_progress() as watch:
            upscale_pipe(*ends, model.limits, partial(model.load, self.skip), self.job, watch)
