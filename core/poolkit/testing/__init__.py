"""What a plugin's tests can use: an engine that needs no weights."""
