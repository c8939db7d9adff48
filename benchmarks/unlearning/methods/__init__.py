"""Ways to remove samples, each a function from a `Task` to a `ModelState`; `catalogue` lists them."""
