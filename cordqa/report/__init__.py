"""Reports, rendered from records only."""
