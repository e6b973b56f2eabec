"""Semi-supervised, domain-generalised medical image segmentation."""

__version__ = "0.1.0"
