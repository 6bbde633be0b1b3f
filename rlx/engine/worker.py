"""The entry point of a started process: ``python -m rlx.engine.worker MODULE FOLDER`` runs a module's main part.

It imports little before it handles Ctrl-C: a process that is stopped while it still imports would print a traceback.
"""

from __future__ import annotations

import runpy
import sys

from rlx.runs.stop import end_at_second_signal


def main() -> None:
    """Run the module with the folder as its only argument; exit code 130 if it is stopped."""
    sys.argv = sys.argv[1:]
    end_at_second_signal()
    try:
        runpy.run_module(sys.argv[0], run_name="__main__")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
