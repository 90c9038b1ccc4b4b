"""Batch runner for LlamaCloud classify jobs: every file ends with one recorded outcome, paid for once."""

__version__ = "0.2.0"
__all__ = ["__version__"]
