"""The HTTP server: one served model behind the dialects that real clients speak."""

from poolkit.server.app import create_app
from poolkit.server.asgi import App
from poolkit.server.logs import log_to_stderr
from poolkit.server.serve import serve

__all__ = ["App", "create_app", "log_to_stderr", "serve"]
