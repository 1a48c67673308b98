"""Compiled loops of the store."""
