"""Harmonisation: taking scanner and site effects out of measurements."""
