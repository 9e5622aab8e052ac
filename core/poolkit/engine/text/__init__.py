"""From texts to token ids: the model's tokenizer, where its tokens lie, and what stands around a text."""
