"""Conditions over items: runs that survive being killed, and the study."""
