"""The built-in tasks. Each is registered through the same entry points as any third party's task."""
