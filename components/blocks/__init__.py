"""Which parameters an update moves: slices of a network, and the ways to choose among them."""
