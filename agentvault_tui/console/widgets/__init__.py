"""What the console's screens are made of, one widget a file."""
