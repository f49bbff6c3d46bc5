"""Loops, zₜ₊₁ = f(zₜ, xₜ), as one constraint."""
