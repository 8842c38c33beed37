"""Measurements: the speed of the loop and of batches, and the search for recipes on held-out images."""
