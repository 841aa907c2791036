"""The remote tail over gRPC: server, client, and what keeps them safe."""
