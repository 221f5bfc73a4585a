"""Studies of a method, run and summarised."""
