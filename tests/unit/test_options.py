"""Options of single families: what is refused, and how flags come of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skipsr.backbones.basicvsr.options import BasicVSROptions
from skipsr.backbones.options import make_options
from skipsr.backbones.seedvr2.options import SeedVR2Options
from skipsr.errors import SettingsError
from skipsr.loading import find_model
from skipsr.settings import RuntimeSettings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (lambda: SeedVR2Options(steps=0), "`steps` 0"),
        (lambda: SeedVR2Options(steps=1001), "`steps` 1001"),
        (lambda: SeedVR2Options(guidance=0.9), "`guidance` 0.9 is outside 1 to 20"),
        (lambda: SeedVR2Options(guidance=21), "`guidance` 21"),
        (lambda: SeedVR2Options(guidance=float("nan")), "`guidance` nan"),
        (lambda: SeedVR2Options(skip="blocks"), "`skip` blocks is none of all, tokens"),  # type: ignore[arg-type]
        (lambda: BasicVSROptions(patches=True), "give `skip` blocks as well"),
    ],
)
def test_values_that_cannot_work(options: Callable[[], object], message: str):
    with pytest.raises(SettingsError) as caught:
        options()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (
            "basicvsr:nano",
            {"steps": 4},
            "`steps` is not for skipvsr:nano: its family's options are `skip`, `patches`",
        ),
        (
            "skipvsr:nano",
            {"skip": "tokens"},
            "`skip` tokens is not for skipvsr:nano: give all or blocks",
        ),
        ("nano", {"skip": "blocks"}, "`skip` blocks is not for seedvr2:nano: give all or tokens"),
        ("nano", BasicVSROptions(), "`patches` is not for seedvr2:nano"),
        ("nano", {"steps": "4"}, "`steps` '4' is not a whole number"),
        ("nano", {"steps": True}, "`steps` True is not a whole number"),
        ("skipvsr:nano", {"detail": "high"}, "`detail` 'high' is not a number"),
    ],
)
def test_what_a_family_lacks_is_refused_before_weights_are_read(
    tmp_path: Path, model: str, given: object, message: str
):
    with pytest.raises(SettingsError) as caught:
        find_model(model, RuntimeSettings(weights=tmp_path / "nowhere"), given)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_options_by_name_are_those_of_the_object():
    own = SeedVR2Options(steps=3, guidance=2.0)
    assert make_options(SeedVR2Options, {"steps": 3, "guidance": 2.0}, "x") == own
    assert make_options(SeedVR2Options, own, "x") == own
    assert make_options(SeedVR2Options, None, "x") == SeedVR2Options()
