"""Attention calls, read and edited while a model runs."""
