"""Relaxometry: inversion recovery, variable flip angle, multi-echo spin echo."""
