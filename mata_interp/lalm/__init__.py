"""lalm."""
