"""Digital phantoms, scanners and studies with known truth."""
