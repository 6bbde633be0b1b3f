"""``python -m rlx.cli`` is the same as ``rlx``."""

from rlx.cli.app import main

if __name__ == "__main__":
    main()
