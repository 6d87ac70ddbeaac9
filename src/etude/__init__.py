"""Papers that run: methods to import into your own PyTorch code, and studies that judge each paper's claims."""

__version__ = "0.1.0"
