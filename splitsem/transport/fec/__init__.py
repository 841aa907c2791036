"""Forward error correction: codes that a link may put around what it sends."""
