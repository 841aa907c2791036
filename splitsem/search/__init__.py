"""Search: which cut, which codec, which branches γ; exactly, by gradients, and validated on true scores."""
