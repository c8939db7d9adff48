"""Whether an updated model may be promoted."""
