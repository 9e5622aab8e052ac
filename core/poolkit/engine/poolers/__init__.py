"""Poolers: what core makes of hidden states: sentence vectors, token vectors, and the rows of a model's own head."""
