"""What the stages of one removal work on: choices, materials and the facts they hand each other."""
