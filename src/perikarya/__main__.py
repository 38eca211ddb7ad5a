"""``python -m perikarya`` is ``perikarya``."""

from perikarya.cli import main

if __name__ == "__main__":
    main()
