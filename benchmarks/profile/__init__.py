"""Where the time of a request goes, stage by stage, beside the limits of the machine: `docs/performance.md`."""
