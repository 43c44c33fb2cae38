from dataclasses import replace

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from made_videos import centers, copy_to, make_video, patches, read_all

from skipsr.clip import Clip
from skipsr.errors import MediaError
from skipsr.settings import Encoding
from skipsr.video import open_target, probe
from skipsr.video.color import ColorTags, FrameMaker, Matrix, RGBReader, output_tags, source_tags

MATRICES = {
    "bt709": (Colorspace.ITU709, 1),
    "bt601": (Colorspace.ITU601, 6),
    "bt2020": (Colorspace.BT2020, 9),
}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", MATRICES)
def test_tagged_sources_come_back_in_their_colours(tmp_path, name, full):
    image = patches()
    path = make_video(tmp_path / "a.mp4", [image] * 3, matrix=MATRICES[name], full=full)
    info, frames, _ = read_all(path)
    assert info.color.matrix == MATRICES[name][1]
    assert info.color.full_range is full
    assert np.abs(centers(frames[1]) - centers(image)).max() <= 3


@pytest.mark.parametrize(("height", "width"), [(48, 64), (720, 64)])
def test_untagged_sources_are_bt601_when_small_and_bt709_when_hd(tmp_path, height, width):
    image = patches(height, width)
    matrix = Colorspace.ITU709 if height == 720 else Colorspace.ITU601
    path = make_video(tmp_path / "a.mp4", [image], matrix=(matrix, 2))
    _, frames, _ = read_all(path)
    assert np.abs(centers(frames[0]) - centers(image)).max() <= 3


@pytest.mark.parametrize(("height", "matrix"), [(48, 6), (720, 1)])
def test_output_is_tagged_as_it_was_converted(tmp_path, height, matrix):
    """An HD output of a small BT.601 source: read by its tags, the colours are the source's."""
    image = patches()
    path = make_video(tmp_path / "a.mp4", [image] * 2, matrix=MATRICES["bt601"])
    copy_to(path, tmp_path / "b.mp4", size=(height, 64 * height // 48), crf=4)
    with av.open(str(tmp_path / "b.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (matrix, 1)
        if height == 720:
            assert (context.color_primaries, context.color_trc) == (1, 1)
    _, frames, _ = read_all(tmp_path / "b.mp4")
    side = 16 * height // 48
    assert np.abs(centers(frames[0], side) - centers(image)).max() <= 4


def test_rgb_is_tagged_with_the_primaries_of_its_source(tmp_path):
    """Of which FFV1 stores no matrix, and every level."""
    path = make_video(tmp_path / "a.mp4", [patches()] * 2, matrix=MATRICES["bt709"])
    info = replace(probe(path), color=ColorTags(matrix=Matrix.BT2020, primaries=9, transfer=14))
    with open_target(tmp_path / "b.mkv", info, (48, 64), Encoding(codec="ffv1")) as target:
        target.write(Clip.from_array(np.stack([patches()] * 2), 0))
    with av.open(str(tmp_path / "b.mkv")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (0, 2)
        assert (context.color_primaries, context.color_trc) == (9, 14)


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p10le"])
@pytest.mark.parametrize("matrix", [Matrix.BT709, Matrix.SMPTE170M, Matrix.BT2020])
def test_deep_conversion_is_exact_to_a_tenth_of_a_level(pixel_format, matrix):
    image = patches(side=16, bits=16)
    image[:16, :16], image[16:32, :16] = 65535, 0
    tags = ColorTags(matrix=matrix)
    frame = FrameMaker(pixel_format, tags).make(image)
    assert np.frombuffer(frame.planes[0], np.uint16)[8] == 940  # white, limited range
    back = RGBReader(tags, 16).read(frame)
    assert back[8, 8].tolist() == [65535] * 3
    assert back[24, 8].tolist() == [0] * 3
    # 10 bits, chroma in steps of 1 / 448: about half a level of 255 in RGB
    assert np.abs(centers(back) - centers(image)).max() / 257 < 0.7


@pytest.mark.parametrize("matrix", [Matrix.BT709, Matrix.SMPTE170M])
def test_eight_bit_conversion_has_no_bias(matrix):
    image = np.repeat(np.arange(256, dtype=np.uint8).repeat(2)[None, :, None], 16, 0)
    image = np.repeat(image, 3, 2)  # a grey ramp: every value
    tags = ColorTags(matrix=matrix)
    back = RGBReader(tags, 8).read(FrameMaker("yuv420p", tags).make(image)).astype(int)
    assert np.abs(back - image).max() <= 1
    assert abs((back - image).mean()) < 0.05


def test_output_tags_follow_the_size_and_keep_hdr():
    small = ColorTags(matrix=Matrix.SMPTE170M, primaries=6, transfer=6)
    assert output_tags(small, (1080, 1440)).matrix == Matrix.BT709
    assert output_tags(small, (1080, 1440)).primaries == 6
    assert output_tags(small, (576, 720)).matrix == Matrix.SMPTE170M
    untagged = output_tags(ColorTags(matrix=Matrix.SMPTE170M), (1080, 1920))
    assert (untagged.primaries, untagged.transfer) == (ColorPrimaries.BT709, ColorTrc.BT709)
    full = ColorTags(matrix=Matrix.BT709, full_range=True)
    assert output_tags(full, (1080, 1920)).full_range is False
    pq = ColorTags(matrix=Matrix.BT2020, primaries=9, transfer=int(ColorTrc.SMPTE2084))
    assert output_tags(pq, (2160, 3840)) == pq


def test_a_matrix_we_cannot_convert_is_refused():
    frame = av.VideoFrame(16, 16, "yuv420p")
    frame.colorspace = 8  # YCgCo
    with pytest.raises(MediaError, match="number 8"):
        source_tags(frame)
