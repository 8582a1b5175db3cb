"""The command line: one small page per group of commands. The only room that prints or exits."""

from cmsim.cli.app import main

__all__ = ["main"]
