"""Options: what is refused, and the size of a result."""

from pathlib import Path

import numpy as np
import pytest

from skipsr.backbones.basicvsr.options import BasicVSROptions
from skipsr.backbones.seedvr2.options import SeedVR2Options
from skipsr.errors import SettingsError
from skipsr.settings import JobSettings, RuntimeSettings, SkipSettings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: SkipSettings(threshold=1.01), "`threshold` 1.01 is outside 0 to 1"),
        (lambda: SkipSettings(threshold=-0.1), "`threshold` -0.1"),
        (lambda: SkipSettings(threshold=float("nan")), "`threshold` nan"),
        (lambda: SkipSettings(budget=0), "`budget` 0 is not above 0 and up to 1"),
        (lambda: SkipSettings(budget=1.5), "`budget` 1.5"),
        (lambda: SkipSettings(budget=float("nan")), "`budget` nan"),
        (lambda: SkipSettings(tau=0), "`tau` 0 is not above 0 and up to 1"),
        (lambda: SkipSettings(tau=1.01), "`tau` 1.01"),
        (lambda: SkipSettings(quality=1.01), "`quality` 1.01 is outside 0 to 1"),
        (lambda: SkipSettings(speed=0.9), "`speed` 0.9 is outside 1 to 100"),
        (lambda: SkipSettings(speed=101), "`speed` 101"),
        (lambda: SkipSettings(budget=0.5, threshold=0.5), "`threshold` or `budget`, not both"),
        (lambda: SkipSettings(budget=0.5, dense=True), "everything: leave out `budget`"),
        (lambda: SkipSettings(threshold=0, dense=True), "everything: leave out `threshold`"),
        (lambda: JobSettings(scale=2.0, height=720), "`scale` or `height`, not both"),
        (lambda: JobSettings(height=720, short_side=720), "`height` or `short_side`, not both"),
        (lambda: JobSettings(height=720, long_side=720), "`height` or `long_side`, not both"),
        (lambda: JobSettings(short_side=8), "`short_side` 8 is outside 16 to 16384 pixels"),
        (lambda: JobSettings(scale=0), "`scale` 0 is outside 0.1 to 16"),
        (lambda: JobSettings(scale=-2), "`scale` -2"),
        (lambda: JobSettings(scale=17), "`scale` 17"),
        (lambda: JobSettings(scale=float("nan")), "`scale` nan"),
        (lambda: JobSettings(scale=float("inf")), "`scale` inf"),
        (lambda: JobSettings(height=0), "`height` 0"),
        (lambda: JobSettings(height=20000), "`height` 20000"),
        (lambda: JobSettings(segment=-1), "`segment` -1 is no length: give seconds, or 0"),
        (lambda: JobSettings(segment=float("inf")), "`segment` inf"),
        (lambda: JobSettings(crf=64), "`crf` 64"),
        (lambda: JobSettings(crf=-1), "`crf` -1"),
        (
            lambda: JobSettings(seed=2**64),
            "`seed` 18446744073709551616 is outside -2^63",
        ),
        (lambda: JobSettings(seed=-(2**63) - 1), "`seed` -9223372036854775809 is outside"),
        (lambda: JobSettings(window=0), "`window` 0 is too small: give at least 1 frame"),
    ],
)
def test_values_that_cannot_work(settings, message):
    with pytest.raises(SettingsError) as caught:
        settings()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("tau", 1e-9, 1),
        ("budget", 1e-9, 1),
        ("quality", 0, 1),
        ("threshold", 0, 1),
        ("speed", 1, 100),
    ],
)
def test_dials_at_either_end_are_taken(name, least, most):
    for value in (least, most):
        assert SkipSettings(**{name: value}).asked == {name: value}


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("crf", 0, 63), ("segment", 0, 1e9), ("scale", 0.1, 16), ("height", 16, 16384)],
)
def test_what_is_at_either_end_is_taken(name, least, most):
    for value in (least, most):
        assert getattr(JobSettings(**{name: value}), name) == value


def test_what_is_asked_is_what_was_given():
    assert SkipSettings().asked == {}
    assert SkipSettings(dense=True).asked == {"dense": 1}
    assert SkipSettings(tau=0.1, threshold=0.4).asked == {"tau": 0.1, "threshold": 0.4}


@pytest.mark.parametrize(
    ("settings", "source", "size"),
    [
        (JobSettings(), (90, 160), (360, 640)),
        (JobSettings(scale=1.5), (101, 33), (152, 50)),
        (JobSettings(scale=0.1), (3, 4), (1, 1)),
        (JobSettings(height=1080), (360, 640), (1080, 1920)),
        (JobSettings(height=100), (33, 64), (100, 194)),
        (JobSettings(short_side=1080), (360, 640), (1080, 1920)),
        (JobSettings(short_side=1080), (640, 360), (1920, 1080)),
        (JobSettings(long_side=1920), (640, 360), (1920, 1080)),
        (JobSettings(short_side=1080, long_side=4096), (360, 640), (1080, 1920)),
        (JobSettings(short_side=1080, long_side=4096), (100, 1000), (410, 4096)),
    ],
)
def test_sizes(settings, source, size):
    assert settings.size(*source) == size


@pytest.mark.parametrize(
    ("settings", "source", "size"),
    [
        (JobSettings(height=720), (1920, 1079), (720, 404)),  # 404.6: not by way of 405
        (JobSettings(height=720), (1920, 1081), (720, 406)),  # 405.4
        (JobSettings(height=333), (90, 160), (334, 592)),
        (JobSettings(scale=1), (75, 101), (76, 102)),  # nothing is cut off
    ],
)
def test_even_sides_are_the_nearest_ones(settings, source, size):
    assert settings.size(*source, step=2) == size


def test_settings_are_frozen_and_by_keyword():
    with pytest.raises(AttributeError):
        JobSettings().seed = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        SkipSettings(0.5)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: JobSettings(seed=1.5), "`seed` 1.5 is not a whole number"),
        (lambda: JobSettings(window=2.5), "`window` 2.5 is not a whole number"),
        (lambda: JobSettings(crf=True), "`crf` True is not a whole number"),
        (lambda: JobSettings(scale="2"), "`scale` '2' is not a number"),
        (lambda: JobSettings(max_memory=3 * 2**30), "`max_memory` 3221225472 is not a text"),
        (lambda: JobSettings(shots=None), "`shots` None is not a text"),
        (lambda: JobSettings(codec="vp9"), "`codec` vp9 is none of h264, h265, av1, ffv1, prores"),
        (lambda: JobSettings(overwrite=1), "`overwrite` 1 is not yes or no"),
        (lambda: RuntimeSettings(dtype="bf16"), "`dtype` bf16 is none of auto, float32"),
        (lambda: RuntimeSettings(weights=7), "`weights` 7 is not a path"),
        (lambda: SkipSettings(reuse="nope"), "`reuse` nope is none of auto, off"),
        (lambda: BasicVSROptions(detail="much"), "`detail` 'much' is not a number"),
        (lambda: SeedVR2Options(steps=1.5), "`steps` 1.5 is not a whole number"),
    ],
)
def test_values_of_other_types(settings, message):
    with pytest.raises(SettingsError) as caught:
        settings()
    assert message in str(caught.value)


def test_values_become_what_they_stand_for():
    """Whole numbers of NumPy's, and paths of texts."""
    settings = JobSettings(seed=np.int64(5), scale=np.float32(2), shots=Path("shots.txt"))
    assert (settings.seed, settings.scale, settings.shots) == (5, 2.0, "shots.txt")
    assert type(settings.seed) is int
    assert RuntimeSettings(weights="folder").weights == Path("folder")
