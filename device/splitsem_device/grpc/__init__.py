"""The edge's end over gRPC: connections that are secured and watched, frames in chunks, and a client that persists."""
