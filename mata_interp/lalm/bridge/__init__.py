"""transformer-lens as a second instrument, on a body of its own."""
