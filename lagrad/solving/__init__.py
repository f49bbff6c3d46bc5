"""A block's unknowns by Newton's method, multipliers by the same factors, and their certificate."""
