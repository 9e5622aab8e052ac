"""poolkit: a plugin-based library and server for embedding, classification, reward and reranking models."""
