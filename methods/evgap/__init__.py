"""EVGAP: ego-exo view-group alignment for procedural video."""
