"""The remote tail over UDP datagrams: fragments, acknowledgements, resending or tolerating loss, pacing."""
