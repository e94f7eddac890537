"""Decoder, attention and audio of a model, found from its structure and behaviour instead of its family."""
