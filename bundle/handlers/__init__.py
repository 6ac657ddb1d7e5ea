"""Ignite handlers that run around the training and evaluation steps."""
