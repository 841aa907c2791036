"""Frames as sealed datagrams that tolerate loss and lateness; plan and keys travel over gRPC."""
