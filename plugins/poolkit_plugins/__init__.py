"""First-party optional plugins: installed with poolkit, enabled by name."""
