"""Measurements of speed; each figure is a ratio of two times taken in alternation in one process."""
