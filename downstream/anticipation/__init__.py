"""Action anticipation: which action begins some time after the last frame that is seen."""
