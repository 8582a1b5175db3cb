"""How each tool's settings become a plan: a page per tool, its names are data."""
