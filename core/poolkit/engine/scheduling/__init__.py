"""Between callers and the engine's thread: jobs, and how their prompts become batches."""
