"""Models: small backbones as ordered named stages, and builders for torchvision and timm."""
