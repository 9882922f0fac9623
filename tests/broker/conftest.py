"""One broker in process for each test."""

from support.bench import bench, clock

__all__ = ["bench", "clock"]
