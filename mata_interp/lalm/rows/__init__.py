"""Prompts read once, then any number of variants of what comes after."""
