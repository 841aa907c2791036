"""Codecs: crossing tensors to bytes and back. ``conf/codec`` names the classes; nothing else needs a registry."""
