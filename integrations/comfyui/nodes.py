"""The nodes. Inputs are made of skipsr's settings; few are shown first, the others are advanced."""

from collections.abc import Iterable
from typing import Any, ClassVar

from comfy_api.v0_0_2 import Input, InputImpl, io

from skipsr.backbones.merged_options import every_option
from skipsr.catalog import list_models
from skipsr.fields import fields_of
from skipsr.settings import AUTO, JobSettings, RuntimeSettings, SkipSettings
from skipsr.video.formats import ENCODERS

from . import jobs, weights
from .choice import ModelChoice
from .host import comfy_errors
from .inputs import given, inputs_of

_CATEGORY = "skipsr"
_MODEL = io.Custom("SKIPSR_MODEL")
# results are new files, which no later run goes on with; ComfyUI trims and paces them itself
_OWN = ("overwrite", "restart", "segment", "start", "end", "fps")
_JOB = {field.name: field for field in fields_of(JobSettings) if field.name not in _OWN}
_SKIP = fields_of(SkipSettings)
_SIZE = ("scale", "height", "short_side", "long_side")
_OF_FRAMES = (*_SIZE, "seed", "window", "overlap", "shots", "max_memory")
_RUNTIME = tuple(field for field in fields_of(RuntimeSettings) if field.name != "weights")
_OPTIONS = every_option()
# Save Video puts what it is given into an .mp4
_CHOICES = {
    "codec": [name for name, spec in ENCODERS.items() if ".mp4" in spec.suffixes],
    "shots": ["auto", "off"],  # and no file of the server's
}
_FIRST = ("scale", "quality")


def _settings(fields: Iterable[str]) -> list[io.Input]:
    every = [*(_JOB[name] for name in fields), *_SKIP]
    model = _MODEL.Input(
        "model", optional=True, tooltip="A model of its own; without one, skipvsr:nano."
    )
    return [*inputs_of(every, _FIRST, _CHOICES), model]


def _run(node: type[io.ComfyNode], model: ModelChoice | None, values: dict[str, Any]) -> jobs.Run:
    return jobs.Run(
        choice=model or ModelChoice(),
        skip=SkipSettings(**given(_SKIP, values)),
        job=JobSettings(segment=0, **given(_JOB.values(), values)),
        node=node.hidden.unique_id,
    )


class ChooseModel(io.ComfyNode):
    """Which model runs, and how."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        networks = [file.label for file in weights.networks()]
        autoencoders = [file.label for file in weights.autoencoders()]
        return io.Schema(
            node_id="SkipsrModel",
            display_name="Choose Model (skipsr)",
            category=_CATEGORY,
            description="A bundled model, which needs no files, or published weights out of "
            "ComfyUI's folders seedvr2, diffusion_models and vae. Nothing is loaded before it is "
            "run.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[AUTO, *(model.name for model in list_models())],
                    default=AUTO,
                    tooltip="auto: the model that the weights are, or skipvsr:nano without any.",
                ),
                io.Combo.Input(
                    "weights",
                    options=[weights.NONE, *networks],
                    default=weights.NONE,
                    tooltip="A file with a network, known by its tensors; its other parts are "
                    "found beside it or in the model folders.",
                ),
                io.Combo.Input(
                    "vae",
                    options=[weights.AUTO, *autoencoders],
                    default=weights.AUTO,
                    optional=True,
                    tooltip="The autoencoder of these weights, where there are several; auto: the "
                    "one beside the network, else the first.",
                ),
                *inputs_of((*_RUNTIME, *_OPTIONS)),
                io.Boolean.Input(
                    "keep_loaded",
                    default=False,
                    optional=True,
                    tooltip="Keep the model in the device's memory for the next run with the same "
                    "settings, instead of giving it back.",
                ),
            ],
            outputs=[_MODEL.Output(display_name="model")],
        )

    @classmethod
    def execute(
        cls,
        model: str,
        weights: str,
        vae: str = AUTO,
        keep_loaded: bool = False,
        **values: Any,
    ) -> io.NodeOutput:
        with comfy_errors():
            choice = _choice(model, weights, vae, keep_loaded, values)
            choice.find()  # what cannot be is said here, not by the node behind
        return io.NodeOutput(choice)


def _choice(
    model: str, network: str, vae: str, keep_loaded: bool, values: dict[str, Any]
) -> ModelChoice:
    return ModelChoice(
        name=model,
        network=None
        if network == weights.NONE
        else weights.pick(weights.networks(), network, "weights"),
        autoencoder=None
        if vae == weights.AUTO
        else weights.pick(weights.autoencoders(), vae, "vae"),
        options=given(_OPTIONS, values),
        keep_loaded=keep_loaded,
        **given(_RUNTIME, values),
    )


class VideoNode(io.ComfyNode):
    """VIDEO in, VIDEO out, by files."""

    MASKS: ClassVar[bool]  # show what would be skipped, in place of the enlarged video

    @classmethod
    def schema(cls, settings: Iterable[str], told: str | None, **about: str) -> io.Schema:
        """
        Args:
            told: the tooltip of the report.
        """
        return io.Schema(
            **about,
            category=_CATEGORY,
            inputs=[io.Video.Input("video"), *_settings(settings)],
            outputs=[
                io.Video.Output(display_name="video"),
                io.String.Output(display_name="report", tooltip=told),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, video: Input.Video, model: ModelChoice | None = None, **values: Any
    ) -> io.NodeOutput:
        with comfy_errors():
            file, report = jobs.run_file(video, _run(cls, model, values), masks=cls.MASKS)
        return io.NodeOutput(InputImpl.VideoFromFile(str(file)), report)


class ImagesNode(io.ComfyNode):
    """IMAGE in, IMAGE and MASK out."""

    MASKS: ClassVar[bool]  # show what would be skipped, in place of the enlarged images

    @classmethod
    def schema(cls, settings: Iterable[str], told: str, **about: str) -> io.Schema:
        """
        Args:
            told: the tooltip of the mask.
        """
        return io.Schema(
            **about,
            category=_CATEGORY,
            inputs=[io.Image.Input("images"), *_settings(settings)],
            outputs=[
                io.Image.Output(display_name="images"),
                io.Mask.Output(display_name="computed", tooltip=told),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls, images: Input.Image, model: ModelChoice | None = None, **values: Any
    ) -> io.NodeOutput:
        with comfy_errors():
            run = _run(cls, model, values)
            return io.NodeOutput(*jobs.run_images(images, run, masks=cls.MASKS))


class UpscaleVideo(VideoNode):
    """Enlarges a video."""

    MASKS = False

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            _JOB,
            "What was computed and how long it took, JSON.",
            node_id="SkipsrUpscaleVideo",
            display_name="Upscale Video (skipsr)",
            description="Enlarges a video and computes only where it shows. Sound, frame times "
            "and colour tags are kept, and memory does not grow with its length.",
        )


class UpscaleImages(ImagesNode):
    """Enlarges the frames of a clip."""

    MASKS = False

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            _OF_FRAMES,
            "1 where the model ran.",
            node_id="SkipsrUpscaleImages",
            display_name="Upscale Images (skipsr)",
            description="Enlarges the frames of one clip, window by window. With a window of 1 "
            "each image is one of its own.",
        )


class ShowMaskVideo(VideoNode):
    """Shows what would be skipped of a video."""

    MASKS = True

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            [name for name in _JOB if name != "seed"],
            None,
            node_id="SkipsrShowMaskVideo",
            display_name="Show Mask of Video (skipsr)",
            description="Draws what would be left out over the plainly upsampled video: the "
            "bluer, the less is computed.",
        )


class ShowMaskImages(ImagesNode):
    """Shows what would be skipped of the frames of a clip."""

    MASKS = True

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            [name for name in _OF_FRAMES if name != "seed"],
            "1 where the model would run.",
            node_id="SkipsrShowMaskImages",
            display_name="Show Mask of Images (skipsr)",
            description="Draws what would be left out over the plainly upsampled images: the "
            "bluer, the less is computed.",
        )


NODES = (ChooseModel, UpscaleVideo, UpscaleImages, ShowMaskVideo, ShowMaskImages)
weights.register()
