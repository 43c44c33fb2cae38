"""How fast the command is there: what it does not import."""

import subprocess
import sys

import pytest

SLOW = ("torch._dynamo", "torch.nn.attention.varlen")
"""They take longer to import than torch itself."""


def loaded_after(code: str) -> set[str]:
    """Modules that are there when a fresh interpreter has run `code`."""
    told = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_and_wrong_usage_need_no_torch():
    assert "torch" not in loaded_after("import skipsr.cli.main")


def test_a_job_needs_none_of_what_compiles():
    code = (
        "import skipsr.backbones.seedvr2.backbone, skipsr.backbones.basicvsr.backbone;"
        "import skipsr.loading, skipsr.pipeline.job, skipsr.cli.progress"
    )
    found = loaded_after(code)
    assert "torch" in found
    assert not found & set(SLOW)


@pytest.mark.parametrize("model", ["skipvsr:nano", "seedvr2:nano"])
def test_nor_does_loading_a_model(model: str):
    code = f"import skipsr.loading; skipsr.loading.load_upscaler({model!r})"
    assert not loaded_after(code) & set(SLOW)
