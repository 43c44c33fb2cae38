"""What users may rely on: names, signatures, flags.

To change them on purpose, rewrite public_api.json: `python tests/test_public_api.py`.
"""

import ast
import contextlib
import dataclasses
import inspect
import io
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import skipsr
from skipsr import backbones
from skipsr.backbones.options import options_of
from skipsr.cli.main import parse
from skipsr.cli.spelling import spell

RECORD = Path(__file__).with_name("public_api.json")
VERBS = {
    "upscale": ["upscale"],
    "batch": ["batch"],
    "mask": ["mask"],
    "preview": ["preview"],
    "plan": ["plan"],
    "shots": ["shots"],
    "models list": ["models", "list"],
    "models fetch": ["models", "fetch"],
    "models identify": ["models", "identify"],
    "train": ["train"],
    "calibrate": ["calibrate"],
    "eval": ["eval"],
    "eval run": ["eval", "run"],
    "eval masks": ["eval", "masks"],
    "eval study": ["eval", "study"],
    "eval score": ["eval", "score"],
    "eval ablation": ["eval", "ablation"],
    "bench": ["bench"],
    "jobs list": ["jobs", "list"],
    "jobs clean": ["jobs", "clean"],
    "serve": ["serve"],
}


def names() -> dict[str, object]:
    """Signatures and, for classes, public members."""
    found: dict[str, object] = {}
    for name in skipsr.__all__:
        value = getattr(skipsr, name)
        entry: dict[str, object] = {"signature": _signature(value)}
        if inspect.isclass(value):
            members = {m for m in vars(value) if not m.startswith("_")}
            if dataclasses.is_dataclass(value):
                members |= {field.name for field in dataclasses.fields(value)}
            entry["members"] = sorted(members)
        found[name] = entry
    return found


def _signature(value: object) -> str:
    """As text, without addresses in memory; an exception has none of its own."""
    if inspect.isclass(value) and issubclass(value, BaseException):
        return ", ".join(base.__name__ for base in value.__mro__[1:-1])
    told = re.sub(r" at 0x\w+", "", str(inspect.signature(value)))  # type: ignore[arg-type]
    return told.replace("tuple[typing.Any, ...]", "typing.Any")  # of arrays, since NumPy 2.2


def flags() -> dict[str, list[str]]:
    """The flags of every verb, from its help."""
    return {verb: _flags(arguments) for verb, arguments in VERBS.items()}


def _flags(arguments: list[str]) -> list[str]:
    told = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # a stream that can show tables
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        parse([*arguments, "--help"])
    told.seek(0)
    text = re.sub(r"\(.*?\)", "", _options(told.read()))
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)))


def _options(text: str) -> str:
    """The first column of the help's tables: flags are named there, and mentioned elsewhere."""
    return "\n".join(line for line in text.splitlines() if re.match(r"^│ (-h, )?--", line))


def record() -> dict[str, object]:
    return json.loads(RECORD.read_text())


def test_names():
    assert skipsr.__all__ == sorted(record()["names"])
    assert sorted(skipsr._HOMES) == skipsr.__all__


@pytest.mark.parametrize("name", skipsr.__all__)
def test_signatures(name: str):
    assert names()[name] == record()["names"][name]


@pytest.mark.parametrize("verb", VERBS)
def test_flags(verb: str):
    assert _flags(VERBS[verb]) == record()["flags"][verb]


def test_settings_are_flags():
    """One field, one flag; options of one name are one, whichever families have it."""
    settings = (skipsr.JobSettings, skipsr.SkipSettings, skipsr.RuntimeSettings)
    own = map(options_of, backbones.families())
    fields = {
        f"--{field.name.replace('_', '-')}"
        for part in (*settings, *own)
        for field in dataclasses.fields(part)
    }
    assert set(record()["flags"]["upscale"]) == fields | {"--help", "--model"}


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        skipsr.nonsense  # noqa: B018


def test_the_command_line_starts_without_torch():
    code = "import skipsr, skipsr.cli.main"
    assert heavy(code) == "[]"


def test_help_and_the_options_of_families_need_no_torch():
    code = """
import contextlib, io
from skipsr.cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.suppress(SystemExit):
    main(["upscale", "--help"])
assert "--guidance" in told.getvalue()
from skipsr.backbones import basicvsr, seedvr2
from skipsr.backbones.basicvsr.options import BasicVSROptions
from skipsr.backbones.seedvr2.options import SeedVR2Options
"""
    assert heavy(code) == "[]"


def heavy(code: str) -> str:
    """What code imports of what takes long."""
    names = ("torch", "av", "skipsr.evaluation")
    told = f"{code}\nimport sys; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Text(NamedTuple):
    place: str
    words: str  # with ? for what is put into them
    documents: bool


@cache
def texts() -> list[Text]:
    """Every string in the package outside the command line."""
    package = Path(skipsr.__file__).parent
    found: list[Text] = []
    for path in package.rglob("*.py"):
        if path.parent.name == "cli":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text())))
        alone = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            if any(isinstance(part, ast.Constant) for part in parts):
                words = (str(p.value) if isinstance(p, ast.Constant) else "?" for p in parts)
                place = f"{path.relative_to(package)}:{parts[0].lineno}"
                found.append(Text(place, "".join(words), id(node) in alone))
    return found


def spellings() -> set[str]:
    return {flag for found in record()["flags"].values() for flag in found}


def test_flags_are_spelled_by_the_command_line_alone():
    """Below it, texts name settings."""
    names = "|".join(spelling.removeprefix("--") for spelling in spellings())
    flag = re.compile(rf"(?<![\w-])--(({names})(?![\w-])|\?)")
    assert [text for text in texts() if flag.search(text.words)] == []


def test_backticks_in_messages_name_settings():
    """Each as the command line spells it."""
    named = [
        (spell(f"`{name}`"), text.place)
        for text in texts()
        for name in re.findall(r"`([a-z][a-z0-9_]*)`", text.words)
        if not text.documents
    ]
    known = spellings()
    assert len(named) > 50
    assert [(flag, place) for flag, place in named if flag not in known] == []


if __name__ == "__main__":
    RECORD.write_text(json.dumps({"names": names(), "flags": flags()}, indent=1) + "\n")
