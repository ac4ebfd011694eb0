"""`python -m mqkit`: the same as `mqkit`."""

from mqkit.cli import main

if __name__ == "__main__":
    main()
