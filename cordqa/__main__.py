"""``python -m cordqa``."""

from cordqa.cli import main

if __name__ == "__main__":
    main()
