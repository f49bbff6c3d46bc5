"""Loops over arrays as machine code (extra `fast`)."""
