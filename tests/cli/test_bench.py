"""The verb that measures speed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Forks


@pytest.fixture(scope="module")
def skipsr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("streams")) as command:
        yield command


def test_a_table_goes_to_stderr_and_json_to_stdout(skipsr: Forks, tmp_path: Path):
    size = ("--frames", "2", "--height", "24", "--width", "24", "--rounds", "1")
    found = skipsr("bench", "--model", "seedvr2:tiny", *size, "--device", "cpu", cwd=tmp_path)
    assert found.code == 0, found.err
    assert found.report["weights"] == "random"
    assert len(found.out.splitlines()) == 1
    assert "of matmul" in found.err


def test_a_wrong_shape_is_one_sentence(skipsr: Forks, tmp_path: Path):
    found = skipsr("bench", "--layers", "3", cwd=tmp_path)
    assert found.code == 1
    assert found.err == (
        "skipsr: error: --layers and --features shape a transformer: give --mechanism\n"
    )
