"""Messages name settings; at the command line they read as flags."""

import logging
import re

import pytest

from skipsr.backbones.merged_options import every_option
from skipsr.cli.main import run
from skipsr.cli.spelling import SpellingFormatter, spell
from skipsr.errors import SettingsError
from skipsr.fields import fields_of
from skipsr.settings import BatchSettings, JobSettings, RuntimeSettings, SkipSettings
from skipsr.web.settings import WebSettings


def test_settings_become_flags_and_nothing_else_does():
    assert spell("`max_memory` 5GiB: `skipsr models list`, `A`, a`b") == (
        "--max-memory 5GiB: `skipsr models list`, `A`, a`b"
    )


def test_a_name_commands_no_terminal():
    told = spell("\x1b]0;title\x07\x1b[31m\x9b2J\r.mp4:\n\tä 日")
    assert told == r"\x1b]0;title\x07\x1b[31m\x9b2J\r.mp4:" + "\n\tä 日"


def test_warnings_are_spelled():
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s: try `codec` %s", ("a", "b"), None)
    assert SpellingFormatter("skipsr: %(message)s").format(record) == "skipsr: a: try --codec b"


def test_one_error_in_python_and_at_the_command_line(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SettingsError, match=r"^`max_memory` lots is no size: give one such as"):
        JobSettings(max_memory="lots")
    assert run(["upscale", "a.mp4", "b.mp4", "--max-memory", "lots"]) == 1
    assert "error: --max-memory lots is no size: give one such as" in capsys.readouterr().err


def test_help_spells_what_docstrings_name(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        run(["upscale", "--help"])
    told = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "Height of the result in pixels, instead of --scale" in told
    assert "For basicvsr (skipvsr): With --skip blocks: upscale" in told
    assert "For seedvr2: Sampling steps" in told
    assert "--skip {all,blocks,tokens}" in told
    assert "For basicvsr (skipvsr), all or blocks: What" in told
    assert "For seedvr2, all or tokens: What" in told


def test_help_speaks_of_flags_that_there_are():
    groups = (JobSettings, SkipSettings, RuntimeSettings, BatchSettings, WebSettings)
    settings = [*(one for group in groups for one in fields_of(group)), *every_option()]
    named = {name for one in settings for name in re.findall(r"`([a-z][a-z0-9_]*)`", one.text)}
    assert named <= {one.name for one in settings}
