"""`poolkit serve`: the HTTP server."""

from __future__ import annotations

from poolkit.cli.options import takes_settings
from poolkit.settings.settings import Resolved

__all__ = ["serve"]


@takes_settings(model_is_positional=True)
def serve(resolved: Resolved) -> None:
    """Start an OpenAI-compatible HTTP server.

    The running server describes its routes at /docs.

    Without MODEL the packaged all-MiniLM-L6-v2 is served. Ctrl-C or SIGTERM stops it once every accepted request is
    answered.
    """
    from poolkit import server  # loads torch: only this command needs it

    server.log_to_stderr()
    server.serve(resolved.settings, resolved.plugins)
