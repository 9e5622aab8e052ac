"""The ways to run a batch through a model, packed or padded, and the check at start-up that chooses one."""
