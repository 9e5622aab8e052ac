"""What a plugin's tests can use: an engine that needs no weights."""

from poolkit.testing.fake_engine import FAKE_MODEL, FakeEngine, FakeTokenizer

__all__ = ["FAKE_MODEL", "FakeEngine", "FakeTokenizer"]
