"""Equality constraints as data: declare, rewrite, match, linearise, print."""
