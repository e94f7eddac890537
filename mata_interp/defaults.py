"""Defaults that Python functions and the command line share, in a module that imports nothing."""

MAX_NEW_TOKENS = 64
"""Longest generated answer, in tokens."""

ALPHAS = (0.1, 0.25, 0.5, 1.0, 2.0)
"""Strengths that searches try: the published one and stronger ones, which a small model may need."""

LAYER_ITEMS = 96
"""Items on which a window of layers is chosen, where no number is named; see analyses/planted_truth.py."""
