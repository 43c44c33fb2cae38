"""The command line: verbs, exit codes, and where errors are printed. Imports no torch itself."""

import gc
import io
import logging
import os
import platform
import re
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from types import FrameType

import tyro

from skipsr.cli.flags import registry
from skipsr.cli.spelling import SpellingFormatter, spell
from skipsr.cli.verbs import VERBS, Verb
from skipsr.errors import describe, with_notes
from skipsr.memory import ask_for_huge_pages

_ABOUT = (
    "Video super-resolution that computes only where it shows. Start with: skipsr upscale in.mp4 "
    "out.mp4. `skipsr upscale --help` lists its options, `skipsr --version` the installed versions."
)
_JOBS = ("list", "clean", "-h", "--help")
_EVALUATIONS = ("run", "masks", "study", "score", "ablation", "-h", "--help")
_FILES_IN_BASH = """
# where nothing else can be meant, names of files
_skipsr_or_files() {
  _tyro_skipsr "$@"
  [[ -n "${COMPREPLY[*]}" ]] || COMPREPLY=()
}
complete -o default -F _skipsr_or_files skipsr"""
_SHELLS = ("bash", "zsh", "fish")
_FACTORS = ("--speed=", "--scale=")
_INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb and exit: 0 done, 1 the job cannot be done, 2 wrong usage, 130 interrupted."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, and the next file would have its number
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115
    code = run(sys.argv[1:] if arguments is None else arguments)
    with suppress(OSError):  # which is told when it is closed
        sys.stdout.flush()
    for number in (signal.SIGINT, signal.SIGTERM):
        if callable(signal.getsignal(number)):  # torch would tell a second one by a traceback
            signal.signal(number, lambda *_: os._exit(code))
    if "triton" not in sys.modules:  # which would then list on stderr all that was left to it
        gc.freeze()  # or the interpreter looks through all of torch in the end, most of a second
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run a verb; returns the exit code."""
    match list(arguments):
        case ["--version"]:
            parts = f"skipsr {version('skipsr')}", f"torch {version('torch')}"
            print(*parts, f"Python {platform.python_version()}", sep=", ")
            return 0
        case ["--completion", shell]:
            return _write_completion(shell)
        case ["batch", *places] if _count_places(places) > 2:  # as by clips/*.mp4 in a shell
            return _fail(
                "batch takes one folder, list or video, and then the folder for results: give the "
                f"folder {Path(places[0]).parent} in place of its files, or a text file "
                "that lists them",
                2,
            )
        case _:
            pass
    ask_for_huge_pages()
    # names of files that a code page lacks
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    lines = logging.StreamHandler()
    lines.setFormatter(SpellingFormatter("skipsr: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[lines])
    warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters of it we say ourselves
    signal.signal(signal.SIGTERM, _interrupt)
    # a terminal that is closed; whoever started us with nohup has it ignored
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        parse(arguments).run()
    except KeyboardInterrupt as error:
        nothing = "" if hasattr(error, "__notes__") else "; no output was written"
        return _fail(with_notes(str(error) or f"interrupted{nothing}", error), _INTERRUPTED)
    except BrokenPipeError:
        # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        message = describe(error)
        if message is None:
            raise
        return _fail(message, 1)
    return 0


def parse(arguments: Sequence[str]) -> Verb:
    """The verb that a command line asks for; wrong usage and --help end the program."""
    return tyro.extras.subcommand_cli_from_dict(
        dict(VERBS),
        registry=registry(),
        args=name_actions(_plain_factors(arguments)),
        prog="skipsr",
        description=_ABOUT,
        config=(
            tyro.conf.OmitArgPrefixes,
            tyro.conf.OmitSubcommandPrefixes,
            tyro.conf.FlagCreatePairsOff,
        ),
    )


def name_actions(arguments: Sequence[str]) -> list[str]:
    """Verbs with the actions that they mean by themselves: `models` is `models list`, `jobs DIR`
    is `jobs list DIR`, and `eval DIR` is `eval run DIR`, so that a folder named `masks` needs
    `./masks`."""
    match list(arguments):
        case ["models" | "jobs" as verb]:
            return [verb, "list"]
        case ["jobs", first, *others] if first not in _JOBS:
            return ["jobs", "list", first, *others]
        case ["eval", first, *others] if first not in _EVALUATIONS:
            return ["eval", "run", first, *others]
        case found:
            return found


def _write_completion(shell: str) -> int:
    """The script by which a shell completes verbs, flags and values, on stdout."""
    if shell not in _SHELLS:
        return _fail(f"--completion {shell}: give {', '.join(_SHELLS)}", 2)
    with suppress(SystemExit):
        parse(["--tyro-write-completion", shell, "-"])
    if shell == "bash":
        print(_FILES_IN_BASH)
    return 0


def _plain_factors(arguments: Sequence[str]) -> list[str]:
    """`--speed 1.5x` and `--scale 2x` as the numbers that they are."""
    found = list(arguments)
    for i, argument in enumerate(found):
        if argument.startswith(_FACTORS) or (i and found[i - 1] + "=" in _FACTORS):
            found[i] = re.sub(r"(?<=\d)[x×]$", "", argument)
    return found


def _count_places(arguments: Sequence[str]) -> int:
    """Arguments before the first option."""
    return sum(1 for _ in takewhile(lambda argument: not argument.startswith("-"), arguments))


def _fail(message: str, code: int) -> int:
    """One line on stderr."""
    print(f"skipsr: error: {spell(message)}", file=sys.stderr)
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # a farm's stop request cleans up as Ctrl-C does
