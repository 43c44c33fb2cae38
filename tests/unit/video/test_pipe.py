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
    writer = PipeWriter(out, info, size)
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


@pytest.mark.parametrize("extra", [3, 10, 700])
def test_an_end_within_a_frame_is_told(extra):
    """Frames before it are given: it is what is left of a program that ended early."""
    data = y4m([grey(50), grey(60), grey(70)])
    size = 6 + 32 * 48 * 3 // 2
    for cut, whole in ((len(data), 3), (len(data) - size, 2), (len(data) - size + extra, 2)):
        with PipeReader(Once(data[:cut])) as reader:
            assert len(list(reader.frames())) == whole
            if cut % size == len(data) % size:
                reader.check_end()
            else:
                with pytest.raises(MediaError, match="stdin ends within a frame: see what"):
                    reader.check_end()


def test_parameters_of_frames_are_no_part_of_the_next():
    data = y4m([grey(50), grey(60)]).replace(b"FRAME", b"FRAME Xfoo=bar")
    with PipeReader(Once(data)) as reader:
        assert len(list(reader.frames())) == 2
        reader.check_end()


@pytest.mark.parametrize("before", [0, 1])
def test_an_interrupt_while_waiting_ends_it(before):
    class Waiting:
        def __init__(self):
            self.left = before
            self.whole = Once(y4m([grey(50, height=240, width=320)] * 2))

        def read(self, size):
            if self.left == 0:
                self.left = -1
                raise KeyboardInterrupt("asked to stop")
            self.left -= 1
            return self.whole.read(130_000 if size > 1 else size)[:size]

    def read_all():
        with PipeReader(Waiting()) as reader:
            list(reader.frames())

    with pytest.raises(KeyboardInterrupt, match="asked to stop"):
        read_all()


@pytest.mark.parametrize(
    ("tag", "expected"), [("Ip A0:0 XLENGTH=2", 2), ("XFOO XLENGTH=12 Ip", 12), ("Ip", 0)]
)
def test_how_many_frames_come_if_the_header_says_so(tag, expected):
    info, frames = read(y4m([grey(50)] * 2, f"C420jpeg {tag}"))
    assert (info.frames, len(frames)) == (expected, 2)


def test_transparency_is_dropped_and_told(caplog):
    planes = (*grey(90, step=(1, 1)), np.full((32, 48), 40, np.uint8))
    read(y4m([planes], "C444alpha"))
    assert "stdin is partly transparent: the transparency is dropped" in caplog.text


@pytest.mark.parametrize(
    ("tag", "aspect"), [("A16:15", Fraction(16, 15)), ("A1:1", Fraction(1)), ("A0:0", None)]
)
def test_the_shape_of_pixels_is_kept(tag, aspect):
    info, (frame,) = read(y4m([grey(50)], f"C420jpeg {tag}"))
    assert info.sample_aspect == aspect
    out = io.BytesIO()
    PipeWriter(out, info, (32, 48)).write(frame)
    assert f" {tag} ".encode() in out.getvalue().partition(b"\n")[0]
    with av.open(io.BytesIO(out.getvalue())) as container:
        assert (container.streams.video[0].sample_aspect_ratio or None) == aspect


@pytest.mark.parametrize("size", [(30, 42), (33, 47)])
def test_rows_are_written_without_what_fills_them_up(size):
    info = replace(frames_info(size), color=ColorTags(matrix=Matrix.BT709, full_range=True))
    ramp = np.add.outer(np.arange(size[0]), np.arange(size[1])).astype(np.uint8)
    out = io.BytesIO()
    PipeWriter(out, info, size).write(np.repeat(ramp[..., None], 3, 2))
    planes = np.frombuffer(out.getvalue().partition(b"\nFRAME\n")[2], np.uint8)
    luma, *colour = planes.reshape(3, *size)
    assert np.abs(luma.astype(int) - ramp).max() <= 1
    assert np.abs(np.stack(colour).astype(int) - 128).max() <= 1


def test_a_stream_that_takes_little_at_a_time_gets_all():
    class Narrow(io.RawIOBase):
        def __init__(self):
            self.taken = b""

        def writable(self):
            return True

        def write(self, data):
            self.taken += bytes(data[:1000])
            return min(len(data), 1000)

    narrow, whole = Narrow(), io.BytesIO()
    for stream in (narrow, whole):
        writer = PipeWriter(stream, frames_info((32, 48)), (32, 48))
        for seed in range(2):
            writer.write(patches(32, 48, seed=seed))
    assert narrow.taken == whole.getvalue()


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
    writer = PipeWriter(out, info, (32, 48))
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
        writer = PipeWriter(Gone(), frames_info((480, 640)), (480, 640))
        for _ in range(3):
            writer.write(np.zeros((480, 640, 3), np.uint8))

    with pytest.raises(MediaError, match="cannot write stdout: Broken pipe"):
        write()
