"""How fast the command is there: what it does not import."""

import subprocess
import sys
from pathlib import Path

import pytest
from command import loaded_after

SLOW = ("torch._dynamo", "torch.nn.attention.varlen")
"""They take longer to import than torch itself."""
OF_OTHERS = ("av", "PIL", "scipy", "pyiqa", "torchvision", "imageio_ffmpeg")


def test_help_and_wrong_usage_need_no_torch():
    (loaded,) = loaded_after("import skipsr.cli.main")
    assert "torch" not in loaded


def test_measuring_is_light_and_loading_and_planning_need_none_of_what_compiles():
    """Told of one start, which takes longer than all that is done after it."""
    code = (
        "import skipsr.pipeline.job, skipsr.cli.progress;"
        "from skipsr.loading import load_upscaler;"
        "[load_upscaler(name) for name in ('skipvsr:nano', 'seedvr2:nano')];"
        "from skipsr.backbones.seedvr2.config import PRESETS;"
        "from skipsr.backbones.seedvr2.memory_law import weights_of;"
        "weights_of(PRESETS['3b'], 2)"  # as a plan counts them
    )
    measuring, planning = loaded_after("import skipsr.metrics", code)
    assert "torch" in measuring
    assert not measuring & set(OF_OTHERS)
    assert not planning & set(SLOW)


@pytest.mark.parametrize("triton", [False, True])
def test_what_triton_holds_is_cleared_at_the_end(tmp_path: Path, triton: bool):
    """It prints a long list of what it finds uncleared, after the report."""
    code = (
        f"import atexit, gc, sys; sys.modules.update({{'triton': sys}} if {triton} else {{}});"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0));"
        f"from skipsr.cli.main import main; main(['jobs', 'list', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == str(not triton)
