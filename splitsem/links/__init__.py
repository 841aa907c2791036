"""Links: what carries payloads in a simulation — clean, recorded, probed, from a trace, or through a noisy channel."""
