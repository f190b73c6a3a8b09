"""Datasets and loader techniques: one file each. Nothing in here knows the launcher or the models."""
