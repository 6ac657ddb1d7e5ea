"""Ignite handlers: what happens around the training and evaluation steps."""
