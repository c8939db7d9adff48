"""Extensions of Sphinx that this documentation is built with."""
