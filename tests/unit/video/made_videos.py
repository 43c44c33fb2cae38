"""Tiny media files, made with PyAV, for the tests beside this file."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)


def patches(height=48, width=64, seed=0, side=16, bits=8):
    """Flat patches of random colours, `h w 3`, uint8 or uint16 at full scale."""
    rng = np.random.default_rng(seed)
    rows, columns = -(-height // side), -(-width // side)
    colors = rng.integers(0, 256, (rows, columns, 3))
    if bits > 8:
        colors = rng.integers(0, 65536, (rows, columns, 3))
    large = np.kron(colors, np.ones((side, side, 1), int))[:height, :width]
    return large.astype(np.uint8 if bits == 8 else np.uint16)


def centers(frame, side=16):
    """The middle of each patch of an `h w 3` array: untouched by chroma at half resolution."""
    return frame[side // 2 :: side, side // 2 :: side].astype(float)


STEADY = {
    "x264-params": "cpu-independent=1"
}  # the same frames make the same file; others ignore it


def make_video(
    path: Path,
    frames,  # arrays h w 3, uint8
    *,
    codec="libx264",
    pix_fmt="yuv420p",
    options=None,
    rate=25,
    times=None,  # pts in time_base
    time_base=None,
    matrix=None,  # (swscale's, the tag); None: swscale's BT.601, untagged
    full=False,
    rotation=None,
    aspect=None,
    audio_seconds=0.0,
    title=None,
    container_options=None,
):
    """Encode frames, and a tone of `audio_seconds` as AAC; returns the path."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w", container_options=container_options or {}) as output:
        if title:
            output.metadata["title"] = title
        own = {"x264-params": "cpu-independent=1"} if codec == "libx264" else {}  # same file again
        stream = output.add_stream(codec, rate=rate, options=own | (options or {"crf": "4"}))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if time_base:
            stream.codec_context.time_base = time_base
        if matrix:
            stream.codec_context.colorspace = matrix[1]
        if full:
            stream.codec_context.color_range = 2
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        sound = output.add_stream("aac", rate=48000) if audio_seconds else None
        for index, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(array),
                format="rgb24" if array.dtype == np.uint8 else "rgb48le",
            ).reformat(
                format=pix_fmt,
                dst_colorspace=matrix[0] if matrix else Colorspace.ITU601,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
                interpolation=EXACT,
            )
            frame.colorspace = matrix[1] if matrix else 2
            frame.time_base = time_base or Fraction(1, rate)
            frame.pts = times[index] if times else index
            output.mux(stream.encode(frame))
        for index in range(int(audio_seconds * 48000 / 1024)):
            wave = np.sin(np.arange(index * 1024, (index + 1) * 1024) / 20).astype(np.float32) / 4
            chunk = av.AudioFrame.from_ndarray(np.stack([wave, wave]), "fltp", "stereo")
            chunk.sample_rate, chunk.pts = 48000, index * 1024
            output.mux(sound.encode(chunk))
        output.mux(stream.encode(None))
        if sound is not None:
            output.mux(sound.encode(None))
    return path


def ramp(count, height=48, width=64):
    """Grey frames, each 8 levels brighter than the one before."""
    return [np.full((height, width, 3), 8 * i + 8, np.uint8) for i in range(count)]


def read_all(path, window=100):
    """The source's info, its frames `t h w 3` in levels of 0 to 255, and their times."""
    from skipsr.video import open_source

    with open_source(path) as source:
        clips = list(source.clips(window, 0))
        frames = [clip.frames.permute(0, 2, 3, 1).numpy() * 255.0 for clip in clips]
        return source.info, np.concatenate(frames), [time for clip in clips for time in clip.times]


def copy_to(source_path, target_path, *, size=None, window=7, overwrite=False, **encoding):
    """Read and write without change (or repeated to `size`); returns the frames written."""
    import torch

    from skipsr.clip import Clip
    from skipsr.settings import Encoding
    from skipsr.video import open_source, open_target

    encoding = Encoding(**encoding)
    with open_source(source_path) as source:
        shape = size or (source.info.height, source.info.width)
        with open_target(target_path, source.info, shape, encoding, overwrite=overwrite) as target:
            for clip in source.clips(window, 0):
                frames = clip.frames
                if size:
                    frames = torch.nn.functional.interpolate(frames, size=size, mode="nearest")
                target.write(Clip(frames, clip.start, clip.times))
        return target.written


def packets(path, kind):
    """`(pts in seconds, bytes)` of each packet of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[0]
        return [
            (p.pts * p.time_base, bytes(p))
            for p in container.demux(stream)
            if p.size and p.pts is not None
        ]
