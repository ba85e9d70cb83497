"""Reliability statistics: table in, table out."""
