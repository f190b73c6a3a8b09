"""A distributed multi-GPU training launcher: one composed config, one frozen plan, one script."""

__version__ = "0.1.0"
