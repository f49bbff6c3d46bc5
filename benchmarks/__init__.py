"""lagrad beside hand-written NumPy and SciPy, and beside other libraries where they install."""
