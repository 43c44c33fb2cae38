"""Make the bundled sample clip again: two moving photographs and a chord, quick to upscale.

Needs scikit-image (`pip install skipsr[demo-clip]`), whose package holds the photographs. The same
versions of PyAV and Pillow give the same file.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from einops import rearrange
from numpy.typing import NDArray
from PIL import Image

from skipsr.data.degrade import downscale, quantize

WIDTH, HEIGHT, SCALE = 160, 88, 4
FPS, SHOT_FRAMES = 24, 24
SAMPLE_RATE = 48_000
CHORD = (220.0, 277.18, 329.63, 440.0)  # A major, Hz
BT709 = 1  # matrix, primaries and transfer alike
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP


@dataclass(frozen=True, slots=True)
class Framing:
    """A window on a photograph: its centre and width in pixels; the height follows."""

    x: float
    y: float
    width: float

    def towards(self, other: "Framing", share: float) -> "Framing":
        def mix(a: float, b: float) -> float:
            return a + (b - a) * share

        return Framing(mix(self.x, other.x), mix(self.y, other.y), mix(self.width, other.width))

    def box(self) -> tuple[float, float, float, float]:
        height = self.width * HEIGHT / WIDTH
        left, top = self.x - self.width / 2, self.y - height / 2
        return left, top, left + self.width, top + height


SHOTS = (
    ("rocket.jpg", Framing(320, 251, 640), Framing(288, 190, 470)),
    ("coffee.png", Framing(350, 205, 440), Framing(302, 215, 580)),
)


def photographs() -> Path:
    """The folder of photographs inside scikit-image, found without importing it."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-image is missing: pip install 'skipsr[demo-clip]'")
    return Path(spec.origin).parent / "data"


def shot(photo: Image.Image, start: Framing, end: Framing) -> Iterator[NDArray[np.uint8]]:
    """Low-resolution frames `h w c` of a window that moves and zooms with a soft start and stop."""
    for i in range(SHOT_FRAMES):
        t = i / (SHOT_FRAMES - 1)
        box = start.towards(end, 0.3 * t + 0.7 * t * t * (3 - 2 * t)).box()
        # the box is fractional: the resampling, not rounding, places it
        large = photo.resize((WIDTH * SCALE, HEIGHT * SCALE), Image.Resampling.BICUBIC, box=box)
        frames = rearrange(torch.from_numpy(np.array(large)), "h w c -> 1 c 1 h w").float() / 255
        small = quantize(downscale(frames, SCALE)).mul(255).round().byte()
        yield rearrange(small, "1 c 1 h w -> h w c").numpy()


def chord(seconds: float) -> NDArray[np.float32]:
    """A soft stereo chord, `channels samples`, that fades in and out and beats slowly."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    fade = np.clip(np.minimum(t / 0.3, (seconds - t) / 0.8), 0, 1)
    sides = [sum(np.sin(2 * np.pi * (tone + side) * t) for tone in CHORD) for side in (-0.3, 0.3)]
    return (0.06 * np.sin(fade * np.pi / 2) ** 2 * np.stack(sides)).astype(np.float32)


def write(path: Path, frames: list[NDArray[np.uint8]], sound: NDArray[np.float32]) -> None:
    """H.264 and AAC in MP4, tagged BT.709."""
    container_options = {"movflags": "+faststart", "fflags": "+bitexact"}
    with av.open(str(path), "w", format="mp4", options=container_options) as container:
        # otherwise the bytes vary from run to run, with the threads and the memory alignment
        steady = "threads=1:lookahead-threads=1:cpu-independent=1"
        options = {"crf": "12", "preset": "veryslow", "x264-params": steady}
        video = container.add_stream("libx264", rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        context = video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = ColorRange.MPEG
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo")
        audio.bit_rate = 96_000
        for array in frames:
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=EXACT,
            )
            frame.color_primaries = frame.color_trc = BT709
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
        samples.sample_rate = SAMPLE_RATE
        container.mux(audio.encode(samples))
        container.mux(audio.encode(None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).parents[1] / "src/skipsr/assets/sample.mp4"
    parser.add_argument("--out", type=Path, default=default, help="where to write the clip")
    out: Path = parser.parse_args().out
    folder = photographs()
    frames: list[NDArray[np.uint8]] = []
    for name, start, end in SHOTS:
        with Image.open(folder / name) as photo:
            frames += shot(photo.convert("RGB"), start, end)
    write(out, frames, chord(len(frames) / FPS))
    print(f"{out}: {len(frames)} frames of {WIDTH}x{HEIGHT}, {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
