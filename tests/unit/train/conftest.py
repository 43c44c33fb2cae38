"""What training is tried on."""

from pathlib import Path

import pytest
from made_models import make_frames
from PIL import Image


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(make_frames(1, 80, 72, seed=i)[0]).save(folder / f"{i}.png")
    return folder
