"""From items to a model's inputs, with every token's group known."""
