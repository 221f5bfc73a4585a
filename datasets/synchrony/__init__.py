"""Whether the cameras of a scene agree on the time, found out from what they show and record."""
