"""What is to be forgotten, what was, and how each removal ended."""
