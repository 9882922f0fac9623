"""The parts of the console's screens, one widget a file."""
