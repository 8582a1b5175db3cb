"""Mean waits of text books beside those of `cmsim_line`: an area of validation from another package."""

from __future__ import annotations

import functools
from pathlib import Path

from cmsim.validation import points
from cmsim.validation.area import Area

#: ``line.yaml`` and ``line.csv`` stand beside this page
AREA = Area("line", functools.partial(points.rows, folder=Path(__file__).parent))
