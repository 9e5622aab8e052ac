"""Settings from poolkit.toml, the environment and the command line, each value with its origin."""
