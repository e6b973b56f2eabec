"""Data sets on disk: index, near-duplicates, splits, and a cache of decoded images."""
