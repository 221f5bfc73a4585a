"""What makes sample i of a run: views, windows, pairing and the plan."""
