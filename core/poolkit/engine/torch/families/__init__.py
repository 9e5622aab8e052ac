"""Adapters of this engine for model families that need special care."""
