"""`python -m flawsmith` is the console script."""

from flawsmith.cli.main import main

if __name__ == "__main__":
    main()
