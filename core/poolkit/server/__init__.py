"""The HTTP server: one served model behind the dialects that real clients speak."""

from poolkit.server.app import create_app
from poolkit.server.asgi import App
from poolkit.server.run import serve

__all__ = ["App", "create_app", "serve"]
