"""Fit one model to one image set: registry of models, reading, fitting in chunks, writing."""
