import os
import struct
import subprocess
import sys
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from made_videos import copy_to, make_video, patches, ramp, read_all
from PIL import EpsImagePlugin, Image, ImageCms, PngImagePlugin

from skipsr.errors import MediaError, SettingsError
from skipsr.settings import Encoding, JobSettings
from skipsr.video import check_target, open_source, open_target, probe, side_step
from skipsr.video.images import read_image


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp"])
def test_images_in_and_out(tmp_path, suffix):
    image = patches(47, 63)
    source = save(tmp_path / "a.png", image)
    target = tmp_path / f"b{suffix}"
    assert side_step(target, "h264") == 1
    assert copy_to(source, target) == 1
    info, frames, _ = read_all(target)
    assert (info.kind, info.height, info.width, info.frames) == ("image", 47, 63, 1)
    exact = suffix in (".png", ".bmp", ".tif", ".tiff")
    difference = np.abs(frames[0] - image)[8::16, 8::16].max()
    assert difference <= (0.01 if exact else 8)


def test_jpeg_keeps_colour_at_full_resolution(tmp_path):
    copy_to(save(tmp_path / "a.png", patches()), tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    image = patches()
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {} if suffix in (".png", ".tif") else {"quality": 100}
    info, frames, _ = read_all(save(tmp_path / f"a{suffix}", image, exif=exif, **how))
    upright = {2: image[:, ::-1], 3: np.rot90(image, 2), 6: np.rot90(image, 3), 8: np.rot90(image)}
    off = np.abs(frames[0] - upright[orientation])
    assert (off.max() < 0.01) if not how else (off[8::16, 8::16].max() < 8)
    assert (info.height, info.width) == frames[0].shape[:2]


@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA"])
def test_tiffs_that_pillow_maps_into_memory_are_turned(tmp_path, mode):
    """Without compression, and not in RGB."""
    image = patches()[..., 0]
    stored = Image.fromarray(image.astype(np.uint16) * 257 if mode == "I;16" else image)
    stored = stored if mode == "I;16" else stored.convert(mode)
    stored.save(tmp_path / "a.tif", tiffinfo={0x0112: 6})
    info, frames, _ = read_all(tmp_path / "a.tif")
    assert (info.height, info.width) == frames[0].shape[:2]
    assert np.abs(frames[0][..., 0] - np.rot90(image, 3)).max() < 0.01


def test_a_png_is_turned_as_its_texts_say(tmp_path):
    """As ImageMagick and Adobe's programs write them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    texts = {
        "Raw profile type exif": f"\nexif\n{len(raw):8d}\n{raw.hex()}\n",
        "XML:com.adobe.xmp": '<rdf:Description tiff:Orientation="6"/>',
    }
    for key, text in texts.items():
        info = PngImagePlugin.PngInfo()
        info.add_text(key, text)
        image = patches(32, 48)
        Image.fromarray(image).save(tmp_path / "a.png", pnginfo=info)
        assert np.array_equal(read_all(tmp_path / "a.png")[1][0], np.rot90(image, -1))


def test_a_turn_behind_the_pixels_is_told_and_left_out(tmp_path, caplog):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.fromarray(patches(32, 48)).save(path, exif=exif)
    data = path.read_bytes()
    at, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
    path.write_bytes(data[:at] + data[end:-12] + data[at:end] + data[-12:])
    assert np.array_equal(read_all(path)[1][0], patches(32, 48))
    assert caplog.messages == [f"{path} says behind its pixels how it is to be turned: it is not"]


def test_grey_palette_and_transparent_images_become_rgb(tmp_path, caplog):
    grey = patches()[..., 0]
    _, frames, _ = read_all(save(tmp_path / "grey.png", grey))
    assert np.array_equal(frames[0].round(), np.repeat(grey[..., None], 3, 2))
    palette = Image.fromarray(patches()).quantize(8)
    palette.save(tmp_path / "palette.png")
    _, frames, _ = read_all(tmp_path / "palette.png")
    assert np.array_equal(frames[0].round(), np.asarray(palette.convert("RGB")))
    transparent = np.dstack([patches(), grey])
    _, frames, _ = read_all(save(tmp_path / "alpha.png", transparent))
    assert np.array_equal(frames[0].round(), patches())
    assert not caplog.records


def alpha_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA"))[..., 3]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_images_stay_as_transparent_as_they_are(tmp_path, caplog, suffix):
    """Turned with the picture, and enlarged with it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = np.add.outer(np.arange(32) * 4, np.arange(48) * 2).astype(np.uint8)
    source = save(tmp_path / "a.png", np.dstack([patches(32, 48), alpha]), exif=exif)
    copy_to(source, tmp_path / f"b{suffix}")
    assert np.array_equal(alpha_of(tmp_path / f"b{suffix}"), np.rot90(alpha, 3))
    copy_to(source, tmp_path / f"c{suffix}", size=(96, 64))
    larger = alpha_of(tmp_path / f"c{suffix}").astype(int)
    assert np.abs(larger[::2, ::2] - np.rot90(alpha, 3).astype(int)).max() <= 4
    assert not caplog.records


def test_each_image_of_a_folder_has_its_own_transparency(tmp_path):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "1.png", patches())
    save(tmp_path / "in" / "2.png", np.dstack([patches(), patches()[..., 0]]))
    Image.fromarray(patches()).quantize(4).save(
        tmp_path / "in" / "3.png", transparency=bytes([0, 99, 255, 255])
    )
    copy_to(tmp_path / "in", tmp_path / "out")
    for name in ("1.png", "2.png", "3.png"):
        assert np.array_equal(alpha_of(tmp_path / "out" / name), alpha_of(tmp_path / "in" / name))


@pytest.mark.parametrize("target", ["b.jpg", "b.mp4", "b.gif"])
def test_transparency_that_is_lost_is_told_once(tmp_path, caplog, target):
    (tmp_path / "in").mkdir()
    for name in ("1.png", "2.png") if target != "b.jpg" else ("1.png",):
        save(tmp_path / "in" / name, np.dstack([patches(), patches()[..., 0]]))
    source = tmp_path / "in" / ("1.png" if target == "b.jpg" else "")
    copy_to(source, tmp_path / target)
    told = [message for message in caplog.messages if "is dropped" in message]
    assert told == [f"{source} is partly transparent: the transparency is dropped"]


def deep_image(path, codec, pix_fmt, array):
    """An image of 16 bits a colour, as FFmpeg writes it."""
    context = av.CodecContext.create(codec, "w")
    context.height, context.width, context.pix_fmt = *array.shape[:2], pix_fmt
    context.time_base = Fraction(1, 25)
    own = "rgb48le" if array.shape[2] == 3 else "rgba64le"
    frame = av.VideoFrame.from_ndarray(array, format=own).reformat(format=pix_fmt)
    path.write_bytes(b"".join(map(bytes, [*context.encode(frame), *context.encode(None)])))
    return path


def decoded(path):
    """An image of 16 bits a colour, as FFmpeg reads it."""
    context = av.CodecContext.create("png" if path.suffix == ".png" else "tiff", "r")
    (frame,) = [*context.decode(av.Packet(path.read_bytes())), *context.decode(None)]
    return frame.to_ndarray()


@pytest.mark.parametrize(
    ("source", "pix_fmt"),
    [("a.png", "rgb48be"), ("a.png", "rgba64be"), ("a.tif", "rgb48le"), ("a.tif", "rgba64le")],
)
@pytest.mark.parametrize("target", ["b.png", "b.tif"])
def test_colour_of_sixteen_bits_is_kept(tmp_path, caplog, source, pix_fmt, target):
    stored = np.random.default_rng(0).integers(0, 65536, (47, 63, 4), np.uint16)
    stored, deep = stored if "a64" in pix_fmt else stored[..., :3].copy(), stored[..., :3]
    codec = "png" if source == "a.png" else "tiff"
    path = deep_image(tmp_path / source, codec, pix_fmt, stored)
    assert np.array_equal(read_image(path, 16, set()), deep)
    copy_to(path, tmp_path / target)
    assert not caplog.messages
    assert probe(tmp_path / target).bits == 16
    assert np.array_equal(read_image(tmp_path / target, 16, set()), deep)
    with Image.open(tmp_path / target) as image:  # as other programs read it
        assert np.array_equal(np.asarray(image), stored >> 8)
    if stored.shape[2] == 4:  # of which Pillow reads, and we keep, the upper half
        opaque = decoded(tmp_path / target)[..., 3]
        assert np.array_equal(opaque, (stored[..., 3] >> 8) * 257)


def test_grey_of_sixteen_bits_with_an_alpha_channel_is_read_as_eight(tmp_path, caplog):
    stored = np.stack([patches(bits=16)[..., 0], np.full((48, 64), 65535, np.uint16)], 2)
    context = av.CodecContext.create("png", "w")
    context.height, context.width, context.pix_fmt = 48, 64, "ya16be"
    context.time_base = Fraction(1, 25)
    frame = av.VideoFrame(64, 48, "ya16be")
    frame.planes[0].update(stored.astype(">u2").tobytes())
    path = tmp_path / "a.png"
    path.write_bytes(b"".join(map(bytes, [*context.encode(frame), *context.encode(None)])))
    told = set()
    for _ in range(2):
        pixels = read_image(path, 8, told)
        assert np.array_equal(pixels, np.repeat(stored[..., :1] >> 8, 3, 2))
    assert caplog.messages == [f"{path} has 16 bits a colour in a form of which 8 are read"]


def test_a_strip_of_a_tiff_has_its_place_and_length(tmp_path):
    copy_to(deep_image(tmp_path / "a.png", "png", "rgb48be", patches(bits=16)), tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:
        tags = image.tag_v2
        assert (tags[278], tags[279], tags[273]) == (48, (48 * 64 * 6,), (tags[273][0],))
        at = tags[273][0]
    stored = np.frombuffer((tmp_path / "b.tif").read_bytes()[at:], "<u2")
    assert np.array_equal(stored.reshape(48, 64, 3), patches(bits=16))


def test_levels_of_deep_grey_are_kept_up_to_white(tmp_path):
    stored = np.arange(65535 - 48 * 64 + 1, 65536, dtype=np.uint16).reshape(48, 64)
    found = read_image(save(tmp_path / "a.png", stored), 16, set())
    assert np.array_equal(found, np.repeat(stored[..., None], 3, 2))


def test_floating_point_values_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(np.zeros((48, 64), np.float32)).save(path)
    with pytest.raises(MediaError, match=r"a\.tif holds floating-point values: save it as 8 or 16"):
        read_image(path, 8, set())


def test_images_of_a_deep_video_are_deep(tmp_path):
    video = make_video(tmp_path / "a.mkv", ramp(3), codec="ffv1", pix_fmt="yuv420p10le")
    copy_to(video, tmp_path / "out")
    assert probe(tmp_path / "out").bits == 16
    assert np.abs(read_all(tmp_path / "out")[1] - read_all(video)[1]).max() < 0.01


def test_depth_that_is_lost_is_told(tmp_path, caplog):
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = deep_image(tmp_path / "a.png", "png", "rgb48be", patches(bits=16))
    data, exif = deep.read_bytes(), turned.tobytes()[6:]
    chunk = b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    deep.write_bytes(data[:33] + chunk + data[33:])
    assert np.array_equal(read_image(deep, 8, set()), np.rot90(patches(bits=16) >> 8, -1))
    assert caplog.messages == [f"{deep} has 16 bits a colour in a form of which 8 are read"]
    caplog.clear()
    grey = save(tmp_path / "grey.png", patches(bits=16)[..., 0])
    copy_to(grey, tmp_path / "b.mkv", codec="ffv1")
    copy_to(grey, tmp_path / "b.png")
    assert caplog.messages == []
    copy_to(grey, tmp_path / "b.jpg")
    assert caplog.messages == [
        f"{grey} has more than 8 bits a colour, and .jpg files 8: .png and .tif keep them"
    ]


def test_sixteen_bit_grey_is_read_at_its_depth(tmp_path):
    deep = np.linspace(0, 65535, 64 * 48).round().astype(np.uint16).reshape(48, 64)
    info, frames, _ = read_all(save(tmp_path / "a.png", deep))
    assert info.bits == 16
    assert np.abs(frames[0][..., 1] - deep / 257).max() < 0.01
    copy_to(tmp_path / "a.png", tmp_path / "b.png")
    assert np.abs(read_all(tmp_path / "b.png")[1][0][..., 1] - deep / 257).max() < 0.01


def test_a_folder_is_as_deep_as_its_deepest_image(tmp_path):
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "1.png", patches())
    deep = patches(bits=16)[..., 0] + np.uint16(1)
    save(tmp_path / "in" / "2.png", deep)
    copy_to(tmp_path / "in", tmp_path / "out")
    assert np.array_equal(read_image(tmp_path / "out" / "1.png", 8, set()), patches())
    assert np.array_equal(read_image(tmp_path / "out" / "2.png", 16, set())[..., 0], deep)


def test_the_colour_profile_is_carried_over(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = save(tmp_path / "a.png", patches(), icc_profile=profile)
    grey = save(tmp_path / "deep.png", patches(bits=16)[..., 0], icc_profile=profile)
    for name in ("b.png", "b.jpg", "b.tif", "b.webp"):
        for path in (source, grey):
            copy_to(path, tmp_path / name, overwrite=True)
            with Image.open(tmp_path / name) as image:
                assert image.info["icc_profile"] == profile


def folder_of(tmp_path, names, size=(48, 64)):
    folder = tmp_path / "frames"
    folder.mkdir()
    for index, name in enumerate(names):
        save(folder / name, np.full((*size, 3), 20 * index, np.uint8))
    return folder


def test_folder_in_natural_order_to_folder(tmp_path):
    names = ["frame2.png", "frame10.bmp", "frame11.jpg"]
    folder = folder_of(tmp_path, names)
    (folder / "notes.txt").write_text("not a frame")
    info, frames, times = read_all(folder)
    assert (info.kind, info.frames, info.rate, times) == ("folder", 3, 24, [0, 1, 2])
    assert frames[:, 0, 0, 0].round().tolist() == [0, 20, 40]
    copy_to(folder, tmp_path / "out", window=2)
    written = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert written == ["frame10.bmp", "frame11.png", "frame2.png"]
    assert np.array_equal(read_all(tmp_path / "out")[1], frames)


def test_folder_to_video_and_back(tmp_path):
    folder = folder_of(tmp_path, [f"{i}.png" for i in range(12)])
    copy_to(folder, tmp_path / "a.mp4")
    info, frames, _ = read_all(tmp_path / "a.mp4")
    assert (info.rate, len(frames)) == (24, 12)
    copy_to(tmp_path / "a.mp4", tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir())[::11] == [
        "frame_000001.png",
        "frame_000012.png",
    ]
    assert np.abs(read_all(tmp_path / "out")[1] - frames).max() < 0.51


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (25, 25),
        (1, 1),
        (5, 5),
        ("0.002", Fraction(1, 500)),
        ("23.976", Fraction(24000, 1001)),
        ("23.98", Fraction(24000, 1001)),
        ("60000/1001", Fraction(60000, 1001)),
    ],
)
def test_a_folder_is_shown_at_the_rate_that_is_given(tmp_path, fps, rate):
    folder = folder_of(tmp_path, [f"{i}.png" for i in range(5)])
    info = probe(folder, rate=JobSettings(fps=fps).rate)
    assert (info.rate, info.time_base * rate, info.last_time) == (rate, 1, 4)
    with (
        open_source(info) as source,
        open_target(tmp_path / "a.mov", info, (48, 64), Encoding(codec="prores")) as target,
    ):
        for clip in source.clips(2, 0):
            target.write(clip)
    assert probe(tmp_path / "a.mov").rate == rate


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        ("23.98", Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (599.4, Fraction(600000, 1001)),
        (24.02, Fraction(2402, 100)),
        (0.004, Fraction(1, 250)),
        (0.001, Fraction(1, 1000)),
        (1000, 1000),
    ],
)
def test_only_rates_near_those_of_ntsc_become_them(fps, rate):
    assert JobSettings(fps=fps).rate == rate


def test_a_rate_is_for_folders_and_a_number(tmp_path):
    video = make_video(tmp_path / "a.mp4", ramp(3))
    with pytest.raises(SettingsError, match=r"a\.mp4 is none: leave it out"):
        probe(video, rate=Fraction(25))
    for fps in ("fast", "0", "1/0", "nan", -25, 1001):
        with pytest.raises(SettingsError, match=r"`fps` .* is no frame rate"):
            JobSettings(fps=fps)


def test_overwriting_a_folder_removes_nothing_else(tmp_path, caplog):
    folder = folder_of(tmp_path, ["1.png", "2.png"])
    out = tmp_path / "out"
    out.mkdir()
    copy_to(folder, out)  # an empty folder is free to use
    (out / "mine.txt").write_text("keep")
    with pytest.raises(SettingsError, match="`overwrite`"):
        copy_to(folder, out)
    copy_to(folder, out, overwrite=True)
    assert sorted(file.name for file in out.iterdir()) == ["1.png", "2.png", "mine.txt"]
    assert "keeps 1 files" in caplog.text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["frames", "out"]


def test_an_image_target_takes_one_frame(tmp_path):
    video = make_video(tmp_path / "a.mp4", ramp(3))
    with open_source(video) as source, pytest.raises(SettingsError, match="3 frames"):
        check_target(tmp_path / "b.png", source.info)
    single = make_video(tmp_path / "one.mp4", ramp(1))
    assert copy_to(single, tmp_path / "b.png") == 1
    assert copy_to(tmp_path / "b.png", tmp_path / "c.mp4") == 1


def test_bad_folders_are_refused(tmp_path):
    folder = folder_of(tmp_path, ["a1.png", "a2.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(MediaError, match=r"no images in it .*: save others as 16 bit TIFF"):
        open_source(tmp_path / "empty")
    save(folder / "a3.png", patches(32, 32))
    with pytest.raises(MediaError, match=r"a3\.png is 32x32, but a1\.png is 64x48"):
        open_source(folder)


def test_a_damaged_image_is_named(tmp_path):
    folder = folder_of(tmp_path, ["1.png"])
    path = save(folder / "2.png", np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:3000])
    told = r"2\.png cannot be read as an image: .*; copy or download it again"
    with open_source(folder) as source, pytest.raises(MediaError, match=told):
        list(source.clips(4, 0))


def test_an_image_that_is_gone_when_it_is_read_is_named(tmp_path):
    path = save(tmp_path / "a.png", patches())
    with open_source(path) as source:
        path.unlink()
        with pytest.raises(MediaError) as told:
            list(source.clips(4, 0))
    assert str(told.value) == f"cannot read {path}: No such file or directory"


@pytest.mark.parametrize("packed", [True, False])
def test_an_image_with_very_long_texts_is_refused_with_what_helps(tmp_path, packed):
    texts = PngImagePlugin.PngInfo()
    for i in range(1 if packed else 65):  # MiB, which Pillow takes no more of
        texts.add_text(f"Comment {i}", "x" * (2**20 + 1), zip=packed)
    path = save(tmp_path / "a.png", patches(), pnginfo=texts)
    with pytest.raises(MediaError) as told:
        probe(path)
    sentence = "holds too much text beside its pixels: save it without metadata first"
    assert str(told.value) == f"{path} {sentence}"


def test_a_name_makes_no_image_of_a_program(tmp_path, monkeypatch):
    """PostScript is a program: Pillow would have Ghostscript run it."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it was run"))
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(MediaError, match=r"a\.png is not an image that can be read"):
        read_all(path)


def test_an_image_may_have_the_name_of_another_kind(tmp_path):
    for kind in ("gif", "webp", "tiff"):
        Image.fromarray(patches()).save(tmp_path / "a.jpg", kind)
        assert read_all(tmp_path / "a.jpg")[0].frames == 1


def test_an_image_of_too_many_pixels_is_one_sentence(tmp_path, monkeypatch):
    source = save(tmp_path / "a.png", patches(48, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 64 // 2 - 1)
    with pytest.raises(MediaError, match=r"a\.png has too many pixels: make it smaller"):
        open_source(source)


def test_damage_that_pillow_did_not_foresee_is_one_sentence(tmp_path):
    path, image = tmp_path / "a.tif", Image.fromarray(patches())
    image.save(path, save_all=True, append_images=[image])
    data = path.read_bytes()
    with Image.open(path) as image:
        image.seek(1)
        width = struct.pack("<HHII", 256, 4, 1, image.width)
    at = data.rindex(width)
    path.write_bytes(data[:at] + b"\xff\x7f" + data[at + 2 :])  # the second has no width now
    info = probe(path)
    with pytest.raises(MediaError, match=r"cannot be read as an image: .* dimensions"):
        read_image(path, info.bits, set())
    with pytest.raises(MediaError, match="dimensions"):
        check_target(tmp_path / "b.mp4", info)


def test_pillow_says_nothing_by_itself(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(patches()).quantize(16).save(path, transparency=bytes([0, 128]))
    code = f"""
from pathlib import Path
from skipsr.cli.main import run
from skipsr.video.images import read_image
run(["plan", {str(path)!r}])
read_image(Path({str(path)!r}), 8, set())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Warning" not in done.stderr


def test_an_image_that_the_format_cannot_hold_is_one_sentence(tmp_path):
    source = save(tmp_path / "a.png", np.zeros((16, 16384, 3), np.uint8))
    with pytest.raises(MediaError, match=r"\.webp cannot hold 16384x16 pixels"):
        copy_to(source, tmp_path / "b.webp")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_names_that_would_collide_are_refused(tmp_path):
    folder = folder_of(tmp_path, ["1.jpg", "1.png"])
    with open_source(folder) as source, pytest.raises(SettingsError, match=r"become 1\.png"):
        check_target(tmp_path / "out", source.info)
    with open_source(folder) as source, pytest.raises(SettingsError, match="is the input"):
        check_target(folder, source.info, overwrite=True)


def test_images_whose_results_case_alone_tells_apart_meet_on_macos(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "A.png"):
        save(tmp_path / "in" / name, patches(24, 24))
    with open_source(tmp_path / "in") as source:
        info = source.info
    check_target(tmp_path / "out", info)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SettingsError, match=r"2 images that would become [aA]\.png"):
        check_target(tmp_path / "out", info)


def test_sound_that_images_do_not_hold_is_told(tmp_path, caplog):
    """A suffix may have been forgotten."""
    source = make_video(tmp_path / "a.mp4", [patches()] * 3, audio_seconds=0.2)
    copy_to(source, tmp_path / "film")
    assert caplog.messages == [
        f"{tmp_path / 'film'} is written as images, without sound and texts: for a video give a "
        "name such as film.mp4"
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_by_an_images_name_is_refused_as_one(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(MediaError, match="is no file, but a folder, a pipe or a device"):
        probe(tmp_path / "a.png")
