"""Late interaction next to the model: MaxSim, and the queries that wait for their documents."""
