"""The remote tail over gRPC: server, client, and the security of both."""
