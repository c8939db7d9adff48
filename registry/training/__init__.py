"""How a model was trained: its record, its data, and the recipe that trains it again."""
