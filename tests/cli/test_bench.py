"""The verb that measures speed."""

import json
from pathlib import Path

import pytest
from command import Forks

from skipsr.bench.settings import BenchSettings
from skipsr.cli.bench import Bench
from skipsr.settings import RuntimeSettings


def test_a_table_goes_to_stderr_and_json_to_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("skipsr.bench.measure._SIDE_CPU", 64)
    settings = BenchSettings(frames=2, height=16, width=16, rounds=1)
    runtime = RuntimeSettings(device="cpu", dtype="float32")
    Bench(model="basicvsr:tiny", bench=settings, runtime=runtime).run()
    found = capsys.readouterr()
    (line,) = found.out.splitlines()
    assert json.loads(line)["weights"] == "random"
    assert "of matmul" in found.err


def test_a_wrong_shape_is_one_sentence(skipsr: Forks, tmp_path: Path):
    found = skipsr("bench", "--layers", "3", cwd=tmp_path)
    assert found.code == 1
    assert found.err == (
        "skipsr: error: --layers and --features shape a transformer: give --mechanism\n"
    )
