"""Workflows: the rooms joined into one run."""
