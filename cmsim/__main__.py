"""``python -m cmsim`` is ``cmsim``."""

from cmsim.cli import main

if __name__ == "__main__":
    main()
