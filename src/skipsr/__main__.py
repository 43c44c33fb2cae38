"""The program `skipsr`, `python -m skipsr`, and so `torchrun -m skipsr`: the command line."""

import sys

_INTERRUPTED = 130


def main() -> None:
    """See `skipsr.cli.main.main`; an interrupt while that is imported ends like any other."""
    try:
        from skipsr.cli.main import main as run  # noqa: PLC0415

        run()
    except KeyboardInterrupt:
        sys.stderr.write("skipsr: error: interrupted; no output was written\n")
        sys.exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
