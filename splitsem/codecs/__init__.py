"""Codecs: turn the crossing tensors into bytes and back."""
