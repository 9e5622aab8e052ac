"""What is made of hidden states: sentence and token vectors, logits, rewards, or what a task brings."""
