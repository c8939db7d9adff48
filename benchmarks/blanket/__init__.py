"""Is the Markov blanket worth it: as the place to move, and as evidence of what carried the removed samples."""
