"""`python -m tremorscope`: the command line."""

from tremorscope.cli import main

if __name__ == "__main__":
    main()
