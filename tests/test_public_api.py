"""What users may rely on: names, signatures, flags.

To change them on purpose, rewrite public_api.json: `python tests/test_public_api.py`.
"""

import dataclasses
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skipsr

RECORD = Path(__file__).with_name("public_api.json")
VERBS = {
    "upscale": ["upscale"],
    "mask": ["mask"],
    "models list": ["models", "list"],
    "models identify": ["models", "identify"],
    "train": ["train"],
    "calibrate": ["calibrate"],
    "eval": ["eval"],
    "eval run": ["eval", "run"],
    "eval masks": ["eval", "masks"],
    "eval study": ["eval", "study"],
    "eval score": ["eval", "score"],
    "eval ablation": ["eval", "ablation"],
}


def python(code: str, *arguments: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return result.stdout


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
    if inspect.isclass(value) and issubclass(value, Exception):
        return ", ".join(base.__name__ for base in value.__mro__[1:-1])
    return re.sub(r" at 0x\w+", "", str(inspect.signature(value)))  # type: ignore[arg-type]


def flags() -> dict[str, list[str]]:
    """The flags of every verb, from its help."""
    return {verb: _flags(arguments) for verb, arguments in VERBS.items()}


def _flags(arguments: list[str]) -> list[str]:
    code = "from skipsr.cli.main import main; main()"
    text = python(code, *arguments, "--help")
    return sorted(
        set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"\(.*?\)", "", _options(text))))
    )


def _options(text: str) -> str:
    """The first column of the help's tables: flags are named there, and mentioned elsewhere."""
    return "\n".join(line for line in text.splitlines() if re.match(r"^│ (-h, )?--", line))


def record() -> dict[str, object]:
    return json.loads(RECORD.read_text())


def test_eleven_names():
    assert sorted(skipsr.__all__) == sorted(record()["names"])
    assert len(skipsr.__all__) == 11


@pytest.mark.parametrize("name", skipsr.__all__)
def test_signatures(name: str):
    assert names()[name] == record()["names"][name]


@pytest.mark.parametrize("verb", VERBS)
def test_flags(verb: str):
    assert _flags(VERBS[verb]) == record()["flags"][verb]


def test_settings_are_flags():
    """One field, one flag."""
    fields = {
        f"--{field.name.replace('_', '-')}"
        for settings in (skipsr.JobSettings, skipsr.SkipSettings, skipsr.RuntimeSettings)
        for field in dataclasses.fields(settings)
    }
    assert set(record()["flags"]["upscale"]) == fields | {"--help", "--model"}


def test_unknown_names():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        skipsr.nonsense  # noqa: B018


def test_the_command_line_starts_without_torch():
    names = ("torch", "av", "skipsr.evaluation")
    code = f"import sys, skipsr, skipsr.cli.main; print([n in sys.modules for n in {names}])"
    assert python(code).strip() == "[False, False, False]"


if __name__ == "__main__":
    RECORD.write_text(json.dumps({"names": names(), "flags": flags()}, indent=1) + "\n")
