"""Adapting a trained model to a task: heads, learning rates by depth, adapters, instructions."""
