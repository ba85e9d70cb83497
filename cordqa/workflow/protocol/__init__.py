"""Acquisition protocols: read what was scanned, check it, compare protocols, draft one."""
