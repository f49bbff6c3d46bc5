"""Factor a matrix once, solve with it and with its transpose."""
