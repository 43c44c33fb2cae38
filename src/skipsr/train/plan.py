"""What a recipe will ask of every device, without weights or data: a dry run on the meta device."""

import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from skipsr.backbones import family
from skipsr.backbones.trainable import Denoiser
from skipsr.errors import SettingsError
from skipsr.skipping.route import Route
from skipsr.timeline import TOKEN_SIDE, token_layer
from skipsr.train.batches import generators_of
from skipsr.train.objective import ClipBatch, Phase
from skipsr.train.recipes import Stage
from skipsr.train.settings import TrainSettings
from skipsr.train.transformers import blocks_of, find_transformers

_GIB = 2**30
_FLOAT = 4  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """Passes of each clip through a transformer in one step."""

    free: int  # without gradients
    learning: int  # with them
    together: int  # with them, in the phase that has most: their activations live at once


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """The needs of one stage on each of `devices` devices."""

    stage: str
    devices: int
    parameters: int  # of the model
    trained: int  # in all phases
    auxiliary: int  # of teachers and discriminators
    tokens: int  # of one clip
    weights_gib: float
    training_gib: float  # gradients, AdamW's moments, average
    activations_gib: float  # of the transformer
    transformer_tflop: float  # one step
    encoder_tflop: float  # one step; nothing once latents are kept
    passes: Passes

    @property
    def total_gib(self) -> float:
        return self.weights_gib + self.training_gib + self.activations_gib

    def lines(self) -> list[str]:
        """For a terminal."""
        total = _figure(self.transformer_tflop + self.encoder_tflop)
        return [
            f"{self.stage}: {self.devices} devices, {self.tokens:,} tokens a clip",
            f"  parameters  {self.parameters / 1e6:,.1f} M, trained {self.trained / 1e6:,.1f} M, "
            f"beside the model {self.auxiliary / 1e6:,.1f} M",
            f"  memory      {self.total_gib:,.1f} GiB a device: weights {self.weights_gib:,.1f}, "
            f"gradients, moments and average {self.training_gib:,.1f}, "
            f"activations {self.activations_gib:,.1f}",
            f"  compute     {total} TFLOP a device and step: transformer "
            f"{_figure(self.transformer_tflop)} ({self.passes.learning} passes with gradients "
            f"and {self.passes.free} without for each clip), encoder "
            f"{_figure(self.encoder_tflop)}",
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One forward pass of a transformer over a clip with nothing skipped."""

    flop: float  # multiply-add = 2
    layer: float  # bytes that autograd keeps of the largest layer
    inputs: float  # bytes of a layer's input
    windows: int  # of the layout that has fewer


def _figure(tflop: float) -> str:
    return f"{tflop:,.0f}" if tflop >= 10 else f"{tflop:.2g}"


def plan_stage(stage: Stage, devices: int, *, latents: bool = False) -> StagePlan:
    """Work out a stage for a number of devices.

    Activations are what autograd keeps of the transformer's layers, counted on the meta device in
    bfloat16 for clips of which nothing is skipped: one layer's and all layers' inputs with
    `recompute`, else all layers'; for every clip of a device and every pass that one loss needs.
    Kernels' workspaces and the small networks come on top.

    Args:
        latents: whether the frozen encoder's latents were computed before.

    Raises:
        SettingsError: when the devices cannot be divided as the stage asks, or a clip not among
            those that share one; or for a model without a transformer.
    """
    settings = stage.settings
    clips = _clips_of_group(stage, devices)
    model, phases = _on_meta(stage)
    assert isinstance(model, Denoiser)
    auxiliary = [module for phase in phases for module in phase.auxiliary]
    trained = _parameters([phase.trained for phase in phases])
    extra = _parameters(auxiliary)
    sharded = _parameters(find_transformers([model, *auxiliary]))

    def held(parameters: dict[int, nn.Parameter]) -> float:
        """Bytes on one device of a float32 copy, in GiB."""
        sizes = (p.numel() / (devices if k in sharded else 1) for k, p in parameters.items())
        return _FLOAT * sum(sizes) / _GIB

    passes = count_passes(stage)
    measured = measure_transformer(model, settings)
    if measured.windows < settings.sequence:
        raise SettingsError(
            f"{stage.name}: {settings.sequence} devices cannot share a clip of {measured.windows} "
            f"windows; set the recipe's sequence to {measured.windows}, or train on larger crops"
        )
    layers = len(blocks_of(find_transformers([model])[0]))
    graphs = clips * passes.together
    kept = graphs * layers * (measured.inputs if settings.recompute else measured.layer)
    if settings.recompute and graphs:
        kept += measured.layer
    cost = passes.free + (4 if settings.recompute else 3) * passes.learning
    are_kept = latents and stage.objective.reads == "latents"
    encoder = 0.0 if are_kept else measure_encoder(model, settings)
    return StagePlan(
        stage=stage.name,
        devices=devices,
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in trained.values()),
        auxiliary=sum(p.numel() for p in extra.values()),
        tokens=math.prod(_grid(settings)),
        weights_gib=held(_parameters([model]) | extra),
        training_gib=3 * held(trained) + held(_parameters([phases[0].trained])),
        activations_gib=kept / settings.sequence / _GIB,
        transformer_tflop=clips * cost * measured.flop / settings.sequence / 1e12,
        encoder_tflop=clips * 2 * encoder / 1e12,
        passes=passes,
    )


def _clips_of_group(stage: Stage, devices: int) -> int:
    settings = stage.settings
    groups, rest = divmod(devices, settings.sequence)
    if rest or groups < 1 or settings.batch % groups:
        raise SettingsError(
            f"{stage.name}: {devices} devices cannot form groups of {settings.sequence} that share "
            f"a batch of {settings.batch}; give `devices` {settings.sequence * settings.batch}"
        )
    return settings.batch // groups


def _on_meta(stage: Stage) -> tuple[nn.Module, Sequence[Phase]]:
    backbone, preset = family(stage.settings.model)
    with torch.device("meta"):
        model = backbone.build(backbone.presets[preset])
        if not isinstance(model, Denoiser):
            raise SettingsError(
                f"{stage.name}: a plan counts a transformer, and {stage.settings.model} has none; "
                "leave out `plan`"
            )
        return model, stage.objective.phases(model)


def _parameters(modules: Sequence[nn.Module]) -> dict[int, nn.Parameter]:
    return {id(p): p for module in modules for p in module.parameters()}


def _grid(settings: TrainSettings) -> tuple[int, int, int]:
    """The tokens of a clip."""
    side = settings.crop // TOKEN_SIDE
    return token_layer(settings.frames - 1) + 1, side, side


def measure_transformer(model: Denoiser, settings: TrainSettings) -> Pass:
    """Count on the meta device, in bfloat16, layers that are alike once.

    The transformer is left there.
    """
    part = model.part("transformer")
    (transformer,) = find_transformers([part])
    for parameter in part.parameters():
        parameter.data = parameter.data.bfloat16()
    part.requires_grad_(True)
    kept = _Kept({id(p) for p in part.parameters()})
    counter = FlopCounterMode(display=False)
    blocks = blocks_of(transformer)
    layers = _Layers(kept, counter, last=len(blocks) - 1)
    for number, block in enumerate(blocks):
        block.forward = functools.partial(layers.run, number, block, block.forward)
    grid = _grid(settings)
    t, h, w = grid
    route = Route.dense(grid)
    side = settings.crop
    with torch.device("meta"):
        frames = torch.empty((1, 3, 1, side, side))
        channels = model.encode(frames).shape[-1]
        latent, time = torch.empty(t, 2 * h, 2 * w, channels), torch.empty(())
    with (
        counter,
        torch.autograd.graph.saved_tensors_hooks(kept.note, lambda x: x),
        _FusedAttention(kept),
    ):
        model.velocity(latent, latent, time, route)
    for block in blocks:
        del block.forward
    return Pass(
        flop=counter.get_total_flops() + layers.spared,
        layer=max(kept for _, kept in layers.found.values()),
        inputs=layers.inputs,
        windows=layers.windows,
    )


class _Layers:
    """What every kind of layer costs: those of equal parameters and layout are one, run once."""

    def __init__(self, kept: "_Kept", counter: FlopCounterMode, *, last: int) -> None:
        self._kept, self._counter, self._last = kept, counter, last
        self.found: dict[object, tuple[float, float]] = {}  # FLOPs, bytes that autograd keeps
        self.spared = 0.0  # FLOPs of the layers not run
        self.inputs, self.windows = 0.0, sys.maxsize

    def run(
        self,
        number: int,
        block: nn.Module,
        forward: Callable[..., tuple[Tensor, Tensor]],
        *given: Any,
    ) -> tuple[Tensor, Tensor]:
        """In place of the layer's `forward`."""
        video, text, _, layout, _ = given
        self.inputs = max(self.inputs, float(video.nbytes))
        self.windows = min(self.windows, layout.text.shape[0])
        shapes = tuple((name, p.shape) for name, p in block.named_parameters())
        kind = number % 2, number == self._last, shapes
        if kind in self.found:
            self.spared += self.found[kind][0]
            return video, text
        flop, kept = self._counter.get_total_flops(), self._kept.bytes
        result = forward(*given)
        self.found[kind] = self._counter.get_total_flops() - flop, self._kept.bytes - kept
        return result


class _Kept:
    """Counts what autograd saves, each storage once, parameters left out."""

    def __init__(self, parameters: set[int]) -> None:
        self._parameters = parameters
        self._seen: dict[int, Tensor] = {}  # alive, so that no storage's address comes twice

    def note(self, x: Tensor) -> Tensor:
        if id(x) not in self._parameters and id(x._base) not in self._parameters:  # pyright: ignore[reportPrivateUsage]
            self._seen[x.untyped_storage()._cdata] = x  # pyright: ignore[reportPrivateUsage]
        return x

    @property
    def bytes(self) -> float:
        return float(sum(x.untyped_storage().nbytes() for x in self._seen.values()))


class _FusedAttention(TorchFunctionMode):
    """Counts what a fused kernel keeps of attention: what goes in and out, never the weights of all
    pairs, which the meta device would have."""

    def __init__(self, kept: _Kept) -> None:
        super().__init__()
        self._kept = kept

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x):
            result = func(*args, **(kwargs or {}))
        for x in (*args[:3], result):
            self._kept.note(x)
        return result


def measure_encoder(model: Denoiser, settings: TrainSettings) -> float:
    """FLOPs to encode one clip; of a long one each four frames cost as much as any other four."""
    if settings.frames <= 9:
        return _encoding(model, settings.crop, settings.frames)
    short, longer = (_encoding(model, settings.crop, frames) for frames in (5, 9))
    return short + (settings.frames - 5) // 4 * (longer - short)


def _encoding(model: Denoiser, side: int, frames: int) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.encode(torch.empty((1, 3, frames, side, side), device="meta"))
    return counter.get_total_flops()


def count_passes(stage: Stage) -> Passes:
    """Counted in a real step of the stage's toy."""
    tiny = stage.tiny()
    backbone, preset = family(tiny.settings.model)
    model = backbone.build(backbone.presets[preset])
    assert isinstance(model, Denoiser)
    model.requires_grad_(False)
    phases = tiny.objective.phases(model)
    counts = [0, 0]  # without gradients, with them
    learning: list[int] = []

    def note(_module: nn.Module, _given: object) -> None:
        counts[torch.is_grad_enabled()] += 1

    auxiliary = [module for phase in phases for module in phase.auxiliary]
    for transformer in find_transformers([model, *auxiliary]):
        transformer.register_forward_pre_hook(note)
    frames = torch.rand((1, 3, 5, 32, 32), generator=torch.Generator().manual_seed(0))
    batch = ClipBatch(frames, frames, generators_of(tiny.settings, 0, [0]))
    for phase in phases:
        phase.trained.requires_grad_(True)
        before = counts[1]
        phase.losses(batch)
        learning.append(counts[1] - before)
    return Passes(free=counts[0], learning=sum(learning), together=max(learning))
