"""Predictions at the original size, metrics of a case, and statistics over cases."""
