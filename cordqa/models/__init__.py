"""Signal equations and their fits: arrays in, arrays out."""
