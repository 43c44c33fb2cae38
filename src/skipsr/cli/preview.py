"""The verbs that show what a job would do: one frame of it, or its masks."""

import dataclasses
from dataclasses import dataclass

from skipsr.cli.flags import (
    FamilyOptions,
    InputPath,
    ModelJob,
    OutputPath,
    check_ends,
    refuse_given,
)
from skipsr.errors import SettingsError
from skipsr.settings import AUTO, JobSettings, RuntimeSettings, SkipSettings
from skipsr.times import as_seconds


@dataclass(frozen=True, kw_only=True)
class Preview(ModelJob):
    """Upscale one frame, to see what a job would give and how long it would take: the plainly
    upsampled frame on the left, the model's on the right. The last line printed is JSON."""

    input: InputPath
    """Video, image, or folder of images."""
    output: OutputPath
    """Image (.png .jpg ...) to write."""
    at: str | None = None
    """The time of the frame: seconds, or a time such as 1:30; by default in the middle."""

    def run(self) -> None:
        one = "is for upscale: a preview is one image"
        refuse_given(self.job, ("start", "end"), f"{one} of the time that `at` gives")
        of_videos = ("codec", "crf", "preset", "window", "overlap", "segment", "restart")
        refuse_given(self.job, of_videos, one)
        check_ends(self.input, self.output, self.job)
        from skipsr.cli.progress import show_progress
        from skipsr.pipeline.still import plan_still, preview_still

        at = None if self.at is None else as_seconds("at", self.at)
        model = self.find()
        plan = plan_still(self.input, self.output, model.limits, self.job)
        with show_progress() as watch:
            report = preview_still(plan, model.load(self.skip, plan.memory), at, watch)
        print(report.to_json())


@dataclass(frozen=True, kw_only=True)
class Mask(ModelJob):
    """Show what would be skipped, over the upscaled input: the bluer, the less is computed."""

    input: InputPath
    """Video, image, or folder of images; with --oracle the high-resolution ground truth."""
    output: OutputPath
    """Video, image, or folder to write."""
    oracle: bool = False
    """Take INPUT as the ground truth and draw the true mask (MSE <= 0.0002) at its own size."""

    def run(self) -> None:
        check_ends(self.input, self.output, self.job)
        from skipsr.cli.progress import show_progress
        from skipsr.pipeline.plan import plan_job
        from skipsr.pipeline.preview import Oracle, draw_masks

        if self.job.restart or self.job.segment != JobSettings().segment:
            raise SettingsError("--segment and --restart are for upscale: masks are not kept")
        usual = AUTO, SkipSettings(), FamilyOptions(), RuntimeSettings()
        if self.oracle and (self.model, self.skip, self.family, self.runtime) != usual:
            raise SettingsError(
                "--oracle runs no model: leave out --model, and how and where one is to run"
            )
        if self.oracle and self.job.sizes:
            raise SettingsError(
                "--oracle draws at INPUT's own size: leave out --scale, --height, --short-side and "
                "--long-side"
            )
        if self.oracle:
            job = dataclasses.replace(self.job, scale=1.0)
            plan = plan_job(self.input, self.output, Oracle.limits, job)
            with show_progress() as watch:
                report = draw_masks(plan, Oracle(), "oracle", watch)
        else:
            model = self.find()
            plan = plan_job(self.input, self.output, model.limits, self.job)
            with show_progress() as watch:
                upscaler = model.load(self.skip)
                report = draw_masks(plan, upscaler, upscaler.name, watch)
        print(report.to_json())
