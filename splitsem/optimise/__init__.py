"""Optimise: which branches γ, which cut λ; exactly, by gradients, and validated on true scores."""
