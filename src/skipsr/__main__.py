"""`python -m skipsr`, and so `torchrun -m skipsr`: the command line."""

from skipsr.cli.main import main

if __name__ == "__main__":
    main()
