"""Figures chosen for reading: each module draws one, from plain arrays, in the width it is given."""
