"""Where the command line writes. A module of its own, for ``screen`` takes along all that a training needs."""

from __future__ import annotations

import sys

from rich.console import Console

# a file or a pipe has no width of its own; tables there are not squeezed into 80 columns
console = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 160)
