"""Attention calls, intercepted while a model runs: read, edited or replaced."""
