"""Whole language models."""
