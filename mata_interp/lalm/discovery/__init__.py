"""What a model is made of and where it hears: found from its own structure and behaviour, never by family."""
