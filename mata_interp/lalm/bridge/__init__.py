"""transformer-lens as a second instrument, on a clone of the model."""
