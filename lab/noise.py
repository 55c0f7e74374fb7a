"""Until all callers take them from `lab.streams`."""

from lab.streams import generator, uniform  # noqa: F401
