"""One file per command: its options, what it computes, and what it prints.

Libraries that are slow to import are imported inside the functions, so that ``--help`` answers at once.
"""
