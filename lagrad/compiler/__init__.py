"""Expressions to fast functions."""
