"""Remote: both ends of a real link — plan, serving, split training — over gRPC or UDP, started over ssh."""
