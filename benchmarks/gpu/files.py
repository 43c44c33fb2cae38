"""From file to file: reading and writing beside computing. Needs PyAV."""

from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from gpu.figures import Figures

from skipsr.loading import load_upscaler
from skipsr.pipeline.job import upscale_video
from skipsr.settings import JobSettings


def jobs(figures: Figures) -> None:
    """Whole jobs with the bundled models: seconds of every stage, and of the clock on the wall."""
    source = Path(str(files("skipsr.assets"))) / "sample.mp4"
    settings = JobSettings(scale=2 if figures.tiny else 4)
    for model in ("skipvsr:nano",) if figures.tiny else ("skipvsr:nano", "seedvr2:nano"):
        with figures.trying(model), TemporaryDirectory() as folder:
            upscaler = load_upscaler(model)
            for turn in range(1 if figures.tiny else 3):
                target = Path(folder) / f"{turn}.mp4"
                report = upscale_video(source, target, upscaler, settings)
                figures.add(f"{model}, turn {turn}", frames=report.frames, seconds=report.seconds)
