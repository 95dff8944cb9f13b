"""Large Language Models from Scratch: the package that the book builds, chapter by chapter."""

__version__ = "0.1.0"
