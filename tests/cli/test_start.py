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


def test_measuring_is_light_planning_compiles_nothing_and_none_of_it_needs_the_resource_module():
    """Told of one start, which takes longer than all that is done after it."""
    planning = (
        "import skipsr.pipeline.job, skipsr.cli.progress;"
        "from skipsr.loading import load_upscaler;"
        "[load_upscaler(name) for name in ('skipvsr:nano', 'seedvr2:nano')];"
        "from skipsr.backbones.seedvr2.config import PRESETS;"
        "from skipsr.backbones.seedvr2.memory_law import weights_of;"
        "weights_of(PRESETS['3b'], 2)"  # as a plan counts them
    )
    rest = (
        "import skipsr.cli.verbs, skipsr.pipeline.preview, skipsr.backbones, skipsr.train.run;"
        "[skipsr.backbones.get(family) for family in skipsr.backbones.families()]"
    )
    as_on_windows = "sys.modules['resource'] = None"
    measured, planned, _ = loaded_after(f"{as_on_windows}; import skipsr.metrics", planning, rest)
    assert "torch" in measured
    assert not measured & set(OF_OTHERS)
    assert not planned & set(SLOW)


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


def test_an_interrupt_while_the_program_is_imported_is_no_traceback():
    interrupt = (
        "import sys, builtins; real = builtins.__import__\n"
        "def stop(name, *rest):\n"
        "    if name == 'tyro': raise KeyboardInterrupt\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = stop\n"
        "from skipsr.__main__ import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", interrupt], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == "skipsr: error: interrupted; no output was written\n"


@pytest.mark.parametrize("again", ["SIGINT", "SIGTERM"])
def test_a_second_interrupt_as_the_program_ends_is_no_traceback(tmp_path: Path, again: str):
    code = (
        "import atexit, os, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"atexit.register(lambda: os.kill(os.getpid(), signal.{again})); print('told');"
        f"from skipsr.cli.main import main; main(['jobs', 'list', {str(tmp_path)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "told\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("no unfinished jobs")
