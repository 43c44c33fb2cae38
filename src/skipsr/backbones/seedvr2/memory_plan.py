"""How a window is run within so much memory: the fastest way that fits, and the longest window."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from itertools import product

from skipsr.backbones.seedvr2.config import SeedVR2Config
from skipsr.backbones.seedvr2.execution import TIGHTEST, CanvasPeaks, CanvasRoom, Execution
from skipsr.backbones.seedvr2.frames import SIZES
from skipsr.backbones.seedvr2.memory_law import (
    SLICE,
    AutoencoderLaw,
    TransformerLaw,
    Weights,
    weights_of,
)
from skipsr.limits import MemoryPlan
from skipsr.memory import free_card_memory, taken_card_memory
from skipsr.nn.causal import Bounds
from skipsr.nn.residence import Residence
from skipsr.timeline import TOKEN_SIDE

_GIB = 2**30
# bytes for workspaces of kernels and small networks, or for Python and torch
_RESERVE = 300 * 2**20
_FILLED = 0.93  # share of memory that blocks of many sizes fill
_HOST_SHARE = 0.6  # of what is free of the host's
_HOST_PIXEL = 52  # bytes in the host's memory: sources, results, and what neighbours share
_MOST_PIXELS = 101 * 1280 * 720  # of a window: the paper's 101 frames at 720p
LONGEST = 101  # frames of a window on a card
_SHORTEST = SLICE + 1
_BAND = (TIGHTEST.band, 2**29)  # bytes, least and most
_STEP = 2**26  # in which the least memory is found
_PICTURE = 12  # bytes of a pixel: float32
# what bands of rows cost, as bytes of a pixel on the bus, of which 20 GB a second cross: 0.55 s for
# 25 frames of 720p (`benchmarks/results/gpu/executions.json`)
_BANDED = 480


class WindowPlanner:
    """Which windows fit into how much memory, and how they are run: a `limits.MemoryLaw`."""

    def __init__(
        self,
        config: SeedVR2Config,
        device: str,
        itemsize: int,
        *,
        stored: int | None = None,
        resident: Residence | None = None,
    ) -> None:
        """Args:
        device: where the networks run, such as `cuda:0`; need not be there.
        itemsize: bytes of a number of theirs.
        stored: bytes of a quantised transformer's file.
        resident: how the weights are there already, and stay; None where they are still to come,
            before which all is given up that this process has on the device.
        """
        self._config, self._device = config, device
        self._itemsize, self._stored = itemsize, stored
        self._card = device.partition(":")[0] != "cpu"
        self._resident: Residence | None = resident
        self._autoencoder = AutoencoderLaw(config=config.vae, itemsize=itemsize)
        self._alone = replace(self._autoencoder, first=1)
        texts = max(config.text_tokens, config.negative_tokens)
        self._transformer = TransformerLaw(config=config.dit, itemsize=itemsize, text_tokens=texts)

    def _law(self, frames: int) -> AutoencoderLaw:
        """Of the autoencoder, for windows of so many frames."""
        return self._alone if frames == 1 else self._autoencoder

    @cached_property
    def _weights(self) -> Weights:
        return weights_of(self._config, self._itemsize, self._stored)

    def budget(self, free: int | None) -> int | None:
        if not self._card:
            return None if free is None else int(_HOST_SHARE * free)
        found = free_card_memory(self._device)
        if found is None:
            return None
        if self._resident is None:
            return found + taken_card_memory(self._device)
        return found + self._at_rest(self._resident)

    def fit(
        self,
        memory: int,
        source: tuple[int, int],
        size: tuple[int, int],
        window: int | None,
        longest: int,
        host: int | None = None,
    ) -> MemoryPlan | None:
        most = max(_SHORTEST, (_MOST_PIXELS // _pixels(size) - 1) // SLICE * SLICE + 1)
        frames = window or min(longest, most)
        most = window or frames
        while True:
            for execution in self._executions(memory, frames, size):
                stages = self.stages(frames, size, execution)
                beside = self._host(frames, size, execution)
                if max(stages.values()) <= memory and (host is None or beside <= host):
                    execution = self._with_canvases(memory, frames, size, execution)
                    stages = self.stages(frames, size, execution)
                    return MemoryPlan(
                        window=frames,
                        stages=stages,
                        host=beside,
                        reasons=self._reasons(frames, size, execution, most),
                        residence=execution.weights,
                        execution=execution,
                    )
            if window is not None or frames <= _SHORTEST:
                return None
            frames = (frames - 2) // SLICE * SLICE + 1

    def least(self, source: tuple[int, int], size: tuple[int, int], window: int | None) -> int:
        frames = window or _SHORTEST
        memory = min(
            max(self.stages(frames, size, Execution(weights=weights, bounds=TIGHTEST)).values())
            for weights in self._residences
        )
        memory = -(-memory // _STEP) * _STEP
        while self.fit(memory, source, size, frames, frames) is None:  # bands grow with memory
            memory += _STEP
        return memory

    def stages(self, frames: int, size: tuple[int, int], execution: Execution) -> Mapping[str, int]:
        """Bytes of each stage at its peak, with weights, workspaces and what cannot be filled."""
        live = self.live(frames, size, execution)
        space = self._law(frames).workspace(_pixels(size), execution.bounds)
        masked = _PICTURE * _pixels(size) * (SLICE + 1) * (execution.bounds is None)
        live["encode"] += space
        live["decode"] += space + masked  # regions are put into pictures of their own
        if execution.canvases is not None:
            beside = self._beside(execution) + self._pictures(frames, size)
            live["decode"] = max(live["decode"], beside + execution.canvases.peak)
        return {stage: int(peak / _FILLED) + _RESERVE for stage, peak in live.items()}

    def _with_canvases(
        self, memory: int, frames: int, size: tuple[int, int], execution: Execution
    ) -> Execution:
        """The same with the room that decoding on canvases has, if there is any."""
        bounds = execution.bounds
        if bounds is None or frames == 1:  # a first frame is decoded whole
            return execution
        beside = self._beside(execution) + self._pictures(frames, size)
        room = int((memory - _RESERVE) * _FILLED) - beside
        found = CanvasRoom(
            memory=room, peaks=self._canvases(size), away=bounds.away, together=bounds.frames
        )
        return replace(execution, canvases=found) if found.most else execution

    def _canvases(self, size: tuple[int, int]) -> CanvasPeaks:
        """With what kernels take besides."""
        law, pixels = self._autoencoder, _pixels(size)
        peaks = law.canvases(pixels)
        return CanvasPeaks(
            first=peaks.first + 2 * TIGHTEST.band,
            always=peaks.always,
            layers={n: held + law.copies(pixels, n) for n, held in peaks.layers.items()},
            tails=peaks.tails,
        )

    def live(self, frames: int, size: tuple[int, int], execution: Execution) -> dict[str, int]:
        """Bytes of tensors of each stage at its peak, weights among them."""
        pixels, count = _pixels(size), SIZES.pad_frames(frames)
        pictures = self._pictures(frames, size)
        if execution.bounds is None:  # else a card's are in the host's memory
            peaks = self._law(frames).whole(pixels)
            picture = _PICTURE * pixels * count * self._card
            encode, decode = peaks.encode + picture, peaks.decode + picture
            pictures += picture
        else:
            peaks = self._law(frames).bounded(pixels, execution.bounds)
            tails = self._law(frames).tails(pixels, execution.bounds.tails)
            encode, decode = peaks.encode + tails.encode, peaks.decode + tails.decode
        weights, beside = self._weights, self._beside(execution)
        denoise = beside
        if execution.weights == "in turn":
            denoise = weights.transformer
        elif execution.weights == "streamed":
            denoise = beside + 2 * weights.block
        rows, columns = (SIZES.pad_side(side) // TOKEN_SIDE for side in size)
        grid = ((count - 1) // SLICE + 1, rows, columns)
        return {
            "encode": beside + encode + pictures,
            "denoise": denoise + weights.opened + self._transformer.peak(grid) + pictures,
            "decode": beside + decode + pictures,
        }

    def _pictures(self, frames: int, size: tuple[int, int]) -> int:
        """Bytes of sources and results where the networks run in the host's memory."""
        return 0 if self._card else _HOST_PIXEL * _pixels(size) * SIZES.pad_frames(frames)

    def _beside(self, execution: Execution) -> int:
        """Bytes of weights on the device while the autoencoder runs."""
        if execution.weights == "in turn":
            return self._weights.autoencoder
        return self._at_rest(execution.weights)

    def _at_rest(self, residence: Residence) -> int:
        """Bytes of weights on the device between windows."""
        weights = self._weights
        if residence == "in turn":
            return 0
        blocks = weights.blocks if residence == "streamed" else 0
        return weights.autoencoder + weights.transformer - blocks

    @property
    def _residences(self) -> tuple[Residence, ...]:
        if self._resident is not None:
            return (self._resident,)
        return ("device", "in turn", "streamed") if self._card else ("device",)

    def _executions(self, memory: int, frames: int, size: tuple[int, int]) -> list[Execution]:
        """From what carries least over the bus to what carries most; of equals the faster first."""
        tails = self._law(frames).tails(_pixels(size))
        every = max(tails.encode, tails.decode)
        band = min(max(memory // 32, _BAND[0]), _BAND[1])
        found: list[Execution] = []
        for weights in self._residences:
            found.append(Execution(weights=weights))
            for together in (4, 2, 1):
                bounds = Bounds(band=band, frames=together, tails=every)
                found.append(Execution(weights=weights, bounds=bounds))
        for weights, together in product(self._residences, (4, 2, 1) if self._card else ()):
            bare = Execution(weights=weights, bounds=Bounds(band=band, frames=together, tails=0))
            stages = self.stages(frames, size, bare)
            left = memory - max(stages["encode"], stages["decode"])
            if left >= 0:
                room = int(left * _FILLED)
                away = tails.decode - self._law(frames).tails(_pixels(size), room).decode
                bounds = Bounds(band=band, frames=together, tails=room, away=away)
                found.append(Execution(weights=weights, bounds=bounds))
        return sorted(found, key=lambda each: self._carried(frames, size, each))

    def _carried(self, frames: int, size: tuple[int, int], execution: Execution) -> float:
        """About how many bytes of a window cross the bus: weights once, and at each visit of the
        finest levels the tails that are away, to and fro; and what bands cost, as such."""
        weights, bounds = self._weights, execution.bounds
        carried = 0.0
        if execution.weights != "device":
            carried = weights.transformer + weights.autoencoder
        if bounds is not None:
            law, pixels = self._law(frames), _pixels(size)
            every, kept = law.tails(pixels), law.tails(pixels, bounds.tails)
            away = every.encode - kept.encode + every.decode - kept.decode
            count = SIZES.pad_frames(frames)
            carried += 2 * away * count / bounds.frames + _BANDED * pixels * count
        return carried

    def _host(self, frames: int, size: tuple[int, int], execution: Execution) -> int:
        """Bytes in the host's memory beside a card's."""
        if not self._card:
            return 0
        taken = _HOST_PIXEL * _pixels(size) * frames
        if execution.bounds is not None:
            taken += self._law(frames).waiting(_pixels(size), execution.bounds)
        if execution.weights == "in turn":
            taken += self._weights.pinned
        elif execution.weights == "streamed":
            taken += self._weights.pinned_blocks
        return taken + _RESERVE

    def _reasons(
        self,
        frames: int,
        size: tuple[int, int],
        execution: Execution,
        most: int,
    ) -> tuple[str, ...]:
        latents = (SIZES.pad_frames(frames) - 1) // SLICE + 1
        why = "as many as are of use" if frames == most else "as many as fit"
        plural = "s" * (frames > 1)
        lines = [f"window: {frames} frame{plural}, {latents} of the latent; {why}"]
        weights = self._weights
        both = (weights.autoencoder + weights.transformer) / _GIB
        lines.append(
            {
                "device": f"weights: all {both:.1f} GiB stay on the device",
                "in turn": (
                    f"weights: transformer ({weights.transformer / _GIB:.1f} GiB) and autoencoder "
                    "take turns on the device; together they leave too little"
                ),
                "streamed": (
                    f"weights: {weights.blocks / _GIB:.1f} GiB of the transformer's blocks are "
                    "streamed, two on the device at a time; the whole leaves too little"
                ),
            }[execution.weights]
        )
        if execution.bounds is None:
            lines.append("autoencoder: whole layers in slices of 4 frames; they fit")
            return tuple(lines)
        law, together = self._law(frames), min(frames, execution.bounds.frames)
        lines.append(
            f"autoencoder: {together} frame{'s' * (together > 1)} at a time at the finest levels, "
            f"in bands of rows of {execution.bounds.band >> 20} MiB, exactly; whole layers would "
            f"take {law.whole(_pixels(size)).decode / _GIB:.1f} GiB"
        )
        if frames == 1:
            return tuple(lines)
        away, tails = execution.bounds.away, law.tails(_pixels(size)).decode
        lines.append(
            f"earlier frames that layers look back at: {(tails - away) / _GIB:.1f} GiB on the "
            f"device, {away / _GIB:.1f} GiB in the host's memory"
        )
        canvases = execution.canvases
        lines.append(
            "skipping: frames are decoded whole, for canvases do not fit beside that"
            if canvases is None
            else f"skipping: decodes what is kept alone where that is at most {canvases.most:.0%} "
            "of a frame, which then fits; else whole frames"
        )
        return tuple(lines)


def _pixels(size: tuple[int, int]) -> int:
    return SIZES.pad_side(size[0]) * SIZES.pad_side(size[1])
