"""What the broker can be asked to do, one file a journey."""
