"""The verb that lists shots, and the list as a setting."""

from pathlib import Path

import pytest
from command import Forks
from made_models import make_frames
from made_videos import make_video


@pytest.mark.slow
def test_a_list_is_printed_written_and_given_back(skipsr: Forks, tmp_path: Path):
    frames = [*make_frames(5, 24, 32), *(255 - make_frames(4, 24, 32, seed=1)[:, ::-1])]
    make_video(tmp_path / "in.mp4", frames)
    printed = skipsr("shots", "in.mp4", cwd=tmp_path)
    assert printed.code == 0, printed.err
    assert printed.out == "0       # 00:00:00.000\n5       # 00:00:00.200\n"
    written = skipsr("shots", "in.mp4", "--out", "list.txt", cwd=tmp_path)
    assert written.out == "list.txt\n"
    assert (tmp_path / "list.txt").read_text() == printed.out
    with (tmp_path / "list.txt").open("a") as file:
        file.write("0:0:0.28 # the eighth\n")
    result = skipsr("upscale", "in.mp4", "out.mkv", "--shots", "list.txt", cwd=tmp_path)
    assert result.code == 0, result.err
    assert result.report["shots"] == 3
    replaced = skipsr("shots", "in.mp4", "--out", "list.txt", "--overwrite", cwd=tmp_path)
    assert replaced.code == 0, replaced.err
    assert (tmp_path / "list.txt").read_text() == printed.out
