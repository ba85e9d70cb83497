"""Quantitative susceptibility mapping: from wrapped phase to susceptibility with its uncertainty."""
