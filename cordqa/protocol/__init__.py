"""Acquisition protocols: what a scan should be, and whether it was."""
