"""What a method measures of itself."""
