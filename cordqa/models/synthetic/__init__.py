"""Synthetic contrast: images that a sequence would show of tissue with known T1, T2 and PD."""
