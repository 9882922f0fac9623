"""One broker in process for each test, or members of a team."""

from support.bench import bench, clock
from support.team_members import a, b, homes

__all__ = ["a", "b", "bench", "clock", "homes"]
