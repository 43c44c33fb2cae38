"""YUV4MPEG2 in and out."""

import io
import re
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from made_videos import patches

from skipsr.errors import MediaError
from skipsr.video import PipeReader, PipeWriter, frames_info
from skipsr.video.color import ColorTags, Matrix


class Once(io.BytesIO):
    """What a pipe is: read from its beginning to its end."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise OSError("a pipe")

    tell = seek


def y4m(frames, tags="C420mpeg2", rate="25:1", dtype=np.uint8):
    """Written by hand, as the format is defined: planes `(y, u, v)` of each frame."""
    height, width = frames[0][0].shape
    parts = [f"YUV4MPEG2 W{width} H{height} F{rate} {tags}\n".encode()]
    for planes in frames:
        parts += [b"FRAME\n", *(plane.astype(dtype).tobytes() for plane in planes)]
    return b"".join(parts)


def grey(level, chroma=128, height=32, width=48, step=(2, 2), dtype=np.uint8):
    small = (height // step[0], width // step[1])
    return (
        np.full((height, width), level, dtype),
        np.full(small, chroma, dtype),
        np.full(small, chroma, dtype),
    )


def read(data):
    with PipeReader(Once(data)) as reader:
        return reader.info, list(reader.frames())


def test_limited_range_becomes_full():
    info, frames = read(y4m([grey(16), grey(126), grey(235)], rate="30000:1001"))
    assert (info.width, info.height, info.bits) == (48, 32, 8)
    assert info.rate == Fraction(30000, 1001)
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 3
    for frame, level in zip(frames, (0, 128, 255), strict=True):
        assert np.abs(frame.astype(int) - level).max() <= 1


def test_full_range_is_taken_as_it_is():
    _, (frame,) = read(y4m([grey(77)], "C420jpeg XCOLORRANGE=FULL"))
    assert np.abs(frame.astype(int) - 77).max() <= 1


def test_deep_video_has_16_bits():
    planes = grey(64 + 438, 512, step=(2, 1), dtype=np.uint16)
    info, (frame,) = read(y4m([planes], "C422p10", dtype=np.uint16))
    assert (info.bits, frame.dtype, info.chroma_step) == (16, np.uint16, (2, 1))
    assert np.abs(frame.astype(int) / 65535 - 0.5).max() < 0.003


@pytest.mark.parametrize(
    ("tags", "told"), [("Ip C420jpeg", False), ("It C420jpeg", True), ("Ib C420jpeg", True)]
)
def test_interlaced_video_is_deinterlaced(tags, told, caplog):
    _, frames = read(y4m([grey(100)] * 3, tags))
    assert len(frames) == 3
    assert ("is interlaced: it is deinterlaced" in caplog.text) is told


@pytest.mark.parametrize("tags", ["C420jpeg", "C420jpeg XCOLORRANGE=FULL"])
@pytest.mark.parametrize("size", [(32, 48), (720, 1280)])
def test_colours_come_out_in_the_numbers_in_which_they_came(tags, size):
    """In no other matrix and range, whatever is assumed of either size."""
    given = (90, 150, 110)
    planes = grey(given[0])
    planes = planes[0], np.full_like(planes[1], given[1]), np.full_like(planes[2], given[2])
    info, (frame,) = read(y4m([planes], tags))
    out = io.BytesIO()
    with PipeWriter(out, info, size) as writer:
        writer.write(np.broadcast_to(frame[:1, :1], (*size, 3)).copy())
    header, _, pixels = out.getvalue().partition(b"\nFRAME\n")
    assert (b"XCOLORRANGE=FULL" in header) is ("FULL" in tags)
    values = np.frombuffer(pixels, np.uint8).astype(int)
    luma = size[0] * size[1]
    parts = values[:luma], values[luma : luma * 5 // 4], values[luma * 5 // 4 :]
    for part, value in zip(parts, given, strict=True):
        assert np.abs(part - value).max() <= 1


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "no YUV4MPEG2: let `ffmpeg"),
        (b"RIFF" + bytes(400), "no YUV4MPEG2"),
        (b"YUV4MPEG2 W48 H32 F25:1 C420jpeg\n", "no frame comes on stdin"),
    ],
)
def test_other_streams_are_refused(data, match):
    with pytest.raises(MediaError, match=match):
        PipeReader(Once(data))


def test_a_broken_frame_ends_the_stream_in_a_sentence():
    data = y4m([grey(50), grey(60)]).replace(b"FRAME", b"XXXXX").replace(b"XXXXX", b"FRAME", 1)
    with PipeReader(Once(data)) as reader, pytest.raises(MediaError, match="cannot read stdin"):
        list(reader.frames())


@pytest.mark.parametrize(
    ("chroma", "bits", "name", "tag"),
    [
        ((2, 2), 8, "yuv420p", "C420"),
        ((1, 1), 8, "yuv444p", "C444"),
        ((2, 1), 16, "yuv422p10le", "C422p10"),
    ],
)
def test_what_is_written_reads_back(chroma, bits, name, tag):
    pictures = [patches(32, 48, seed=i, bits=bits) for i in range(3)]
    info = replace(frames_info((32, 48), rate=Fraction(24000, 1001), bits=bits), chroma_step=chroma)
    info = replace(info, color=ColorTags(matrix=Matrix.SMPTE170M))
    out = io.BytesIO()
    with PipeWriter(out, info, (32, 48)) as writer:
        assert writer.bits == bits
        for picture in pictures:
            writer.write(picture)
    data = out.getvalue()
    header = data[: data.index(b"\n")].decode()
    assert re.search(rf" W48 H32 F24000:1001 .*{tag}", header)
    with av.open(io.BytesIO(data)) as container:
        assert [frame.format.name for frame in container.decode(video=0)] == [name] * 3
    _, frames = read(data)
    for frame, picture in zip(frames, pictures, strict=True):
        inner = np.abs(frame[4:12, 4:12].astype(float) - picture[4:12, 4:12])
        assert inner.max() <= 2 * (257 if bits == 16 else 1)


def test_a_reader_that_has_gone():
    class Gone(io.RawIOBase):
        def writable(self):
            return True

        def write(self, _):
            raise BrokenPipeError(32, "Broken pipe")

    def write():
        with PipeWriter(Gone(), frames_info((480, 640)), (480, 640)) as writer:
            for _ in range(3):
                writer.write(np.zeros((480, 640, 3), np.uint8))

    with pytest.raises(MediaError, match="cannot write stdout: Broken pipe"):
        write()
