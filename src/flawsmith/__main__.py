"""`python -m flawsmith` is the console script."""

from flawsmith.cli import main

if __name__ == "__main__":
    main()
