"""Simulations of calibration.py: how often tests reject and intervals cover, on data whose truth is known."""
