"""Models: small backbones as ordered named stages, RepVGG with branches, and builders for torchvision and timm."""
