"""Phantoms: definition, location, measurement and judgement."""
