"""Diffusion: gradient tables and schemes, tensor, kurtosis, microscopic anisotropy."""
