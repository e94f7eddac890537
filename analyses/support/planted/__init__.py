"""The planted models of `mata_interp.organism.planted_set`, as a benchmark of methods that select layers."""
