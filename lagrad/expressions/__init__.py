"""Traced arrays: nodes that NumPy's functions make."""
