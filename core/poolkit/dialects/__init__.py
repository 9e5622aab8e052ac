"""Core's dialects, each an entry point in group `poolkit.dialects` as a plugin's would be."""
