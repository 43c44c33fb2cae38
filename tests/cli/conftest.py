"""The command, forked off one process a worker of the tests."""

from collections.abc import Iterator

import pytest
from command import Forks


@pytest.fixture(scope="session")
def skipsr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("streams")) as command:
        yield command
