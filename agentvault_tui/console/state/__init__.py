"""What is known: the broker's answers as records, and what follows from them."""
