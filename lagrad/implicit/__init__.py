"""`fixed_point`, `root` and `argmin`."""
