"""``python -m trainshed`` and the command ``trainshed``."""

from __future__ import annotations

import sys

from trainshed.cli import main

if __name__ == "__main__":
    sys.exit(main())
