"""Nodes keep what a graph relies on: times, sound, sizes, sentences; and leave nothing behind."""

import io
import json
import tomllib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from made_models import make_frames
from made_videos import make_video, read_all
from packaging.specifiers import SpecifierSet

import skipsr
from skipsr.backbones.merged_options import every_option
from skipsr.fields import fields_of
from skipsr.settings import JobSettings, RuntimeSettings, SkipSettings

PACK = Path(__file__).parents[3] / "integrations" / "comfyui"
TIMES = [0, 3, 4, 9, 12, 20]  # uneven, in fiftieths of a second
VIDEO_NODES = ("SkipsrUpscaleVideo", "SkipsrShowMaskVideo")
IMAGE_NODES = ("SkipsrUpscaleImages", "SkipsrShowMaskImages")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of 32x24 at uneven times, with a tone."""
    return make_video(
        tmp_path_factory.mktemp("clip") / "clip.mp4",
        list(make_frames(6, 24, 32)),
        times=TIMES,
        time_base=Fraction(1, 50),
        audio_seconds=0.4,
    )


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Six images of 32x24, as ComfyUI has them: `b h w c`, 0 to 1."""
    return torch.from_numpy(make_frames(6, 24, 32)).float() / 255


def result_path(video) -> Path:
    return Path(video.get_stream_source())


def audio_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def interrupt_at(pack, monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    """Somebody presses the button when so many frames are done."""
    show = pack.utils.ProgressBar.update_absolute

    def pressed(bar, value, *arguments):
        show(bar, value, *arguments)
        if value >= frames:
            pack.comfy.interrupt_current_processing()

    monkeypatch.setattr(pack.utils.ProgressBar, "update_absolute", pressed)


def test_few_inputs_are_shown_and_the_others_are_for_experts(pack):
    for node_id, node in pack.nodes.items():
        inputs = node.GET_SCHEMA().inputs
        shown = [i.id for i in inputs if not i.extra_dict.get("advanced")]
        assert len(shown) <= 4, node_id
        assert all(i.optional for i in inputs if i.extra_dict.get("advanced"))


def test_every_setting_is_an_input_with_its_text_and_its_choices(pack):
    owners = {
        "SkipsrUpscaleVideo": [*fields_of(SkipSettings), *fields_of(JobSettings)],
        "SkipsrModel": [*fields_of(RuntimeSettings), *every_option()],
    }
    for node_id, fields in owners.items():
        inputs = {i.id: i for i in pack.nodes[node_id].GET_SCHEMA().inputs}
        for field in fields:
            # results are new files; videos are trimmed and paced before; weights are a list
            own = ("overwrite", "restart", "segment", "start", "end", "fps", "weights")
            if field.name in own:
                continue
            assert inputs[field.name].tooltip.startswith(pack.inputs.spell(field.text))
            assert "`" not in inputs[field.name].tooltip
            if field.choices and field.name != "codec":
                assert inputs[field.name].widget["options"] == [*field.choices]


def test_untouched_widgets_ask_for_nothing(pack):
    for fields in (fields_of(SkipSettings), fields_of(JobSettings), every_option()):
        for node_id in pack.nodes:
            assert pack.inputs.given(fields, pack.widgets(node_id)) == {}
    assert {"scale": 4.0, "quality": 0.5}.items() <= pack.widgets("SkipsrUpscaleVideo").items()


def test_a_video_keeps_frame_times_and_sound(pack, clip):
    values = pack.widgets("SkipsrUpscaleVideo") | {"scale": 2.0}
    video, report = pack.run("SkipsrUpscaleVideo", video=pack.video(clip), **values)
    info, frames, times = read_all(result_path(video))
    assert frames.shape == (6, 48, 64, 3)
    assert [Fraction(time) * info.time_base for time in times] == [Fraction(t, 50) for t in TIMES]
    assert audio_of(result_path(video)) == audio_of(clip)
    assert json.loads(report)["model"] == "skipvsr:nano"
    assert pack.left == [result_path(video)]
    assert pack.utils.shown[-1] == (6, 6, "7")


def test_a_video_in_memory_is_put_into_a_file_for_the_run_alone(pack, clip):
    held = pack.video(io.BytesIO(clip.read_bytes()))
    video, _ = pack.run("SkipsrUpscaleVideo", video=held, scale=2.0)
    assert len(read_all(result_path(video))[1]) == 6
    assert pack.left == [result_path(video)]


def test_a_trimmed_video_is_trimmed_before_it_is_enlarged(pack, clip, tmp_path):
    class Trimmed(pack.api.InputImpl.VideoFromFile):  # as newer versions of the API have it
        def get_active_trim_window(self):
            return 0.0, 0.08

        def save_to(self, path, format="auto", codec="auto", metadata=None, crf=None):
            assert crf == 0
            make_video(Path(path), list(make_frames(2, 24, 32)))

    video, _ = pack.run("SkipsrUpscaleVideo", video=Trimmed(str(clip)), scale=2.0)
    assert len(read_all(result_path(video))[1]) == 2
    assert pack.left == [result_path(video)]


@pytest.mark.parametrize(
    "kept", [{"crop": (0, 0, 16, 16)}, {"start_time": 0.04}, {"duration": 0.1}]
)
def test_what_a_version_keeps_to_itself_until_it_saves_is_saved_first(pack, clip, kept):
    """Versions that crop or trim late, and have no method that says so."""

    class Lazy(pack.api.InputImpl.VideoFromFile):
        def save_to(self, path, format="auto", codec="auto", metadata=None):
            make_video(Path(path), list(make_frames(2, 16, 16)))

    held = Lazy(str(clip))
    for name in ("crop", "start_time", "duration"):
        setattr(held, f"_VideoFromFile__{name}", kept.get(name))
    video, _ = pack.run("SkipsrUpscaleVideo", video=held, scale=2.0)
    assert read_all(result_path(video))[1].shape == (2, 32, 32, 3)


def test_settings_and_the_chosen_model_reach_the_run(pack, clip):
    (model,) = pack.run("SkipsrModel", model="seedvr2:nano", weights="none", steps=2)
    assert model.options == {"steps": 2}
    _, report = pack.run(
        "SkipsrUpscaleVideo", video=pack.video(clip), model=model, scale=2.0, budget=0.5, crf=30
    )
    found = json.loads(report)
    assert (found["model"], found["asked"]) == ("seedvr2:nano", {"budget": 0.5})
    assert (found["width"], found["height"]) == (64, 48)


def test_detail_changes_the_picture(pack, images):
    def enlarged(**options):
        (model,) = pack.run("SkipsrModel", model="skipvsr:nano", weights="none", **options)
        return pack.run("SkipsrUpscaleImages", images=images[:2], model=model, dense=True)[0]

    assert torch.equal(enlarged(), enlarged(detail=0.5))
    assert not torch.equal(enlarged(), enlarged(detail=1.0))


def test_images_are_those_of_upscale_frames_and_the_mask_is_what_was_computed(pack, images):
    larger, computed = pack.run(
        "SkipsrUpscaleImages", images=images, scale=2.0, quality=0.3, window=4, overlap=1
    )
    assert (larger.shape, computed.shape) == ((6, 48, 64, 3), (6, 48, 64))
    assert larger.dtype == computed.dtype == torch.float32
    upscaler = skipsr.load_upscaler(skip=SkipSettings(quality=0.3))
    frames = (images * 65535).round().numpy().astype(np.uint16)
    settings = JobSettings(scale=2, window=4, overlap=1)
    expected = np.stack(list(skipsr.upscale_frames(iter(frames), upscaler, settings)))
    np.testing.assert_array_equal((larger * 65535).round().numpy(), expected)
    assert 0 <= computed.min() <= computed.max() <= 1
    _, everything = pack.run("SkipsrUpscaleImages", images=images, scale=2.0, dense=True)
    assert everything.min() == 1


def test_images_are_planned_for_once(pack, images, monkeypatch):
    """Loading takes of the memory that was planned with."""
    looked = []

    def free() -> int:
        looked.append(1)
        return 2**33

    monkeypatch.setattr("skipsr.pipeline.plan.free_memory", free)
    pack.run("SkipsrUpscaleImages", images=images, scale=2.0)
    assert len(looked) == 1


def test_an_image_alone_is_enlarged(pack, images):
    larger, computed = pack.run("SkipsrUpscaleImages", images=images[:1], height=60)
    assert (larger.shape, computed.shape) == ((1, 60, 80, 3), (1, 60, 80))


def test_transparent_images_stay_transparent(pack, images):
    alpha = torch.linspace(0, 1, images.shape[2]).expand(*images.shape[:3])[..., None]
    larger, _ = pack.run("SkipsrUpscaleImages", images=torch.cat((images, alpha), -1), scale=2.0)
    opaque, _ = pack.run("SkipsrUpscaleImages", images=images, scale=2.0)
    assert torch.equal(larger[..., :3], opaque)
    assert larger.shape[-1] == 4
    halves = larger[:, ::2, :, 3].unflatten(2, (-1, 2)).mean(-1)
    torch.testing.assert_close(halves, alpha[..., 0], atol=0.01, rtol=0)


@pytest.mark.usefixtures("no_matrix_unit")
def test_what_is_skipped_is_blue_and_what_is_computed_is_not(pack):
    flat = torch.full((3, 32, 96, 3), 0.5)
    noise = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(0))
    flat[:, :, 64:] = noise
    drawn, computed = pack.run("SkipsrShowMaskImages", images=flat, scale=2.0, reuse="off")
    blue = drawn[..., 2] - drawn[..., 0]
    assert computed[:, :, :80].max() == 0
    assert computed[:, :, -32:].mean() > 0.5
    assert (blue[computed == 0] > 0.3).float().mean() > 0.9


def test_a_video_of_the_mask_has_its_frames(pack, clip):
    video, report = pack.run("SkipsrShowMaskVideo", video=pack.video(clip), scale=2.0)
    assert read_all(result_path(video))[1].shape == (6, 48, 64, 3)
    assert 0 <= json.loads(report)["skipped"] <= 1


@pytest.mark.parametrize("node_id", VIDEO_NODES)
def test_an_interrupt_ends_a_video_and_leaves_nothing(pack, clip, node_id, monkeypatch):
    interrupt_at(pack, monkeypatch, 1)
    with pytest.raises(pack.comfy.InterruptProcessingException):
        pack.run(node_id, video=pack.video(clip), scale=2.0, window=2, overlap=0)
    assert pack.left == []
    assert pack.utils.shown[-1][0] < 6


@pytest.mark.parametrize("node_id", IMAGE_NODES)
def test_an_interrupt_ends_images(pack, images, node_id, monkeypatch):
    interrupt_at(pack, monkeypatch, 1)
    with pytest.raises(pack.comfy.InterruptProcessingException):
        pack.run(node_id, images=images, scale=2.0, window=2, overlap=0)
    assert pack.utils.shown[-1][0] < 6


def test_images_tell_how_far_they_are_within_a_window(pack, images):
    pack.run("SkipsrUpscaleImages", images=images, scale=2.0)
    told = [frames for frames, *_ in pack.utils.shown]
    assert told == sorted(told)
    assert set(told) == set(range(7))


def test_an_interrupt_is_heard_within_a_window(pack, images, monkeypatch):
    interrupt_at(pack, monkeypatch, 0)
    with pytest.raises(pack.comfy.InterruptProcessingException):
        pack.run("SkipsrUpscaleImages", images=images, scale=2.0)
    assert [shown[0] for shown in pack.utils.shown] == [0]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"scale": 3.0, "height": 48}, "give 'scale' or 'height', not both"),
        ({"budget": 0.2, "tau": 0.01}, "give 'budget' or 'tau', not both"),
        ({"max_memory": "much"}, "'max_memory' much is no size: give one such as 3GiB or 800MiB"),
        ({"window": 4, "overlap": 3}, "'overlap' 3 does not fit 'window' 4: give 0 to 2 frames"),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence_in_the_words_of_the_node(
    pack, clip, images, values, sentence
):
    with pytest.raises(pack.host.NodeError) as of_images:
        pack.run("SkipsrUpscaleImages", images=images, **values)
    with pytest.raises(pack.host.NodeError) as of_video:
        pack.run("SkipsrUpscaleVideo", video=pack.video(clip), **values)
    assert str(of_images.value) == str(of_video.value) == sentence
    assert pack.left == []


def test_what_is_no_video_is_one_sentence(pack, clip, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clip.read_bytes()[:1500])
    for file in (tmp_path / "none.mp4", broken):
        with pytest.raises(pack.host.NodeError) as error:
            pack.run("SkipsrUpscaleVideo", video=pack.video(file))
        assert file.name in str(error.value)
        assert "\n" not in str(error.value)
    assert pack.left == []


def test_a_device_that_is_not_there_is_one_sentence(pack, images):
    (model,) = pack.run("SkipsrModel", model="auto", weights="none", device="cuda:99")
    with pytest.raises(pack.host.NodeError, match="'device' cuda:99 is not usable"):
        pack.run("SkipsrUpscaleImages", images=images, model=model)


def test_grey_images_are_refused(pack):
    with pytest.raises(pack.host.NodeError, match="'images' have 1 channels: give RGB"):
        pack.run("SkipsrUpscaleImages", images=torch.zeros(2, 24, 32, 1))


def test_the_example_is_made_of_inputs_that_there_are(pack):
    workflow = json.loads((PACK / "example_api" / "upscale_video.json").read_text())
    ours = {key: step for key, step in workflow.items() if step["class_type"] in pack.nodes}
    assert len(ours) == 3
    for step in ours.values():
        inputs = {i.id: i for i in pack.nodes[step["class_type"]].GET_SCHEMA().inputs}
        assert step["inputs"].keys() <= inputs.keys()
        required = {name for name, one in inputs.items() if not one.optional}
        assert required <= step["inputs"].keys()


def test_the_workflow_of_the_template_browser_says_as_much_as_the_example(pack):
    """ComfyUI's own page wrote it from the example; values are kept in the order of the inputs."""
    workflow = json.loads((PACK / "example_workflows" / "upscale_video.json").read_text())
    example = json.loads((PACK / "example_api" / "upscale_video.json").read_text())
    assert len(workflow["nodes"]) == len(example)
    for node in workflow["nodes"]:
        step = example[str(node["id"])]
        assert node["type"] == step["class_type"]
        if node["type"] not in pack.nodes:
            continue
        linked = {one["name"] for one in node["inputs"] if one["link"] is not None}
        assert linked == {name for name, value in step["inputs"].items() if isinstance(value, list)}
        inputs = pack.nodes[node["type"]].GET_SCHEMA().inputs
        names = [one.id for one in inputs if one.id not in linked]
        values = dict(zip(names, node["widgets_values"], strict=True))
        given = {name: value for name, value in step["inputs"].items() if name not in linked}
        assert values.items() >= given.items()


def test_the_pack_asks_for_the_package_that_it_was_made_for():
    about = tomllib.loads((PACK / "pyproject.toml").read_text())["project"]
    (pin,) = about["dependencies"]
    assert (PACK / "requirements.txt").read_text().split() == [pin]
    assert skipsr.__version__ in SpecifierSet(pin.removeprefix("skipsr"))
    assert about["version"] == skipsr.__version__
