"""The command line: `poolkit demo | serve | embed | config | plugins`."""

from poolkit.cli.main import main

__all__ = ["main"]
