"""Measurements of poolkit: beside its peers (`benchmarks.compare`) and stage by stage (`benchmarks.profile`)."""
