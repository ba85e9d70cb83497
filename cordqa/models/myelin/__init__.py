"""Measures of myelin: water fractions, two pools, ratios and compartments."""
