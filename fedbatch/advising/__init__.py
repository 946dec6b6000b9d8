"""Advice on the batch: a short probe of a config, and what it says."""
