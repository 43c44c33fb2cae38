"""What the pages say holds: commands parse, links lead somewhere, code compiles, quoted messages
are those of the program."""

import ast
import contextlib
import io
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from itertools import takewhile
from pathlib import Path
from shutil import which

import pytest

import skipsr
from skipsr.cli.main import parse, run
from skipsr.cli.spelling import spell

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "DESIGN.md", "CONTRIBUTING.md", "SKIPVSR.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "integrations/comfyui/README.md",
    ROOT / "benchmarks/gpu/README.md",
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"(?:^|\s)(?:\.venv/bin/)?(?:-m )?skipsr (?P<arguments>.*)")
AT_ONCE = ("--version", "--completion")  # answered before anything is parsed


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def command_lines(page: Path) -> Iterator[list[str]]:
    """The arguments of every `skipsr ...` in a page's code blocks, without comments."""
    for block in blocks(page, ""):
        for line in block.replace("\\\n", " ").splitlines():
            found = PROGRAM.search(line)
            if found and not re.match(r"pip|pipx|docker build", line):
                words = shlex.split(found["arguments"], comments=True)
                yield list(takewhile(lambda word: word != "|", words))


@cache
def refusal(arguments: tuple[str, ...]) -> str:
    """Why a command line does not parse; empty where it does."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            parse(arguments)
    except SystemExit as ended:
        return told.getvalue() if ended.code else ""
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path):
    asked = [tuple(line) for line in command_lines(page) if line[0] not in AT_ONCE]
    assert {line: why for line in asked if (why := refusal(line))} == {}


def test_commands_are_found():
    assert sum(len(list(command_lines(page))) for page in PAGES) > 60


def test_a_flag_that_is_not_there_is_noticed():
    assert "--detial" in refusal(("upscale", "in.mp4", "out.mp4", "--detial", "0.8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path):
    text = BLOCK.sub("", page.read_text("utf-8"))
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [link.partition("#")[0] for link in links if not re.match(r"\w+:|#", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_compiles_and_names_what_there_is(page: Path):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            match node:
                case ast.Attribute(value=ast.Name("skipsr"), attr=name):
                    assert hasattr(skipsr, name)
                case _:
                    pass


def test_the_page_of_options_has_every_flag():
    """Of the verbs that people run; its tables are made by the site's hook."""
    spec = spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = module_from_spec(spec)
    spec.loader.exec_module(hooks)
    page = hooks.on_page_markdown((ROOT / "docs/options.md").read_text("utf-8"))
    known = json.loads((ROOT / "tests/public_api.json").read_text("utf-8"))["flags"]
    verbs = ("upscale", "mask", "batch", "shots", "serve", "plan", "bench")
    verbs += ("jobs clean", "models fetch")
    flags = {flag for verb in verbs for flag in known.get(verb, [])} - {"--help"}
    assert [flag for flag in sorted(flags) if f"`{flag}`" not in page] == []
    assert "| `--degrade` | `bicubic`, `bd`, `real` |" in page


def texts() -> list[str]:
    """Every string of the package, as the command line spells it; what is put in is …"""
    found: list[str] = []
    for path in Path(skipsr.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.JoinedStr(values=parts):
                    words = (p.value if isinstance(p, ast.Constant) else "…" for p in parts)
                    found.append("".join(map(str, words)))
                case ast.Constant(value=str(text)):
                    found.append(text)
                case _:
                    pass
    return [re.sub(r"--…", "…", spell(text.replace("`…`", "…"))) for text in found]


def test_messages_are_quoted_word_for_word():
    """Those of the tables' first columns; … stands for what is put in."""
    page = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    said = "\n".join(texts())
    unknown = [
        text for text in quoted if not re.search(".*".join(map(re.escape, text.split("…"))), said)
    ]
    assert len(quoted) > 40
    assert unknown == []


@cache
def completion(shell: str) -> str:
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        assert run(["--completion", shell]) == 0
    return told.getvalue()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_written_for_a_shell(shell: str):
    text = completion(shell)
    assert "upscale" in text
    assert "--max-memory" in text


def test_completion_for_no_shell_is_refused(capsys: pytest.CaptureFixture[str]):
    assert run(["--completion", "abacus"]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == (
        "",
        "skipsr: error: --completion abacus: give bash, zsh, fish\n",
    )


@pytest.mark.skipif(which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["upscale", "--codec", "h26"], "h264 h265"),
        (["upscale", "in.mp4", "out.mp4", "--max-m"], "--max-memory"),
        (["upscale", "cli"], ""),  # for which bash then takes names of files
    ],
)
def test_bash_completes_values_flags_and_files(words: list[str], completed: str, tmp_path: Path):
    script = tmp_path / "skipsr"
    script.write_text(completion("bash"))
    asked = f"""
        source {script}
        complete -p skipsr
        COMP_WORDS=(skipsr {" ".join(words)}); COMP_CWORD={len(words)}
        _skipsr_or_files skipsr "${{COMP_WORDS[-1]}}" "${{COMP_WORDS[-2]}}"
        echo "${{#COMPREPLY[@]}}: ${{COMPREPLY[*]}}"
    """
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    registered, found = done.stdout.splitlines()
    assert registered == "complete -o default -F _skipsr_or_files skipsr"
    assert found == f"{len(completed.split())}: {completed}"
