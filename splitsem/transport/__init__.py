"""Transport: how payloads travel — channels and links."""
