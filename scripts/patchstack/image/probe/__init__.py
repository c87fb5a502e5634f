"""Programs that run inside an image, by its own Python, and nowhere else: they use the standard library alone.

Each reads one JSON document from its input and writes one to what was its output when it began; all else that is
printed there, by whoever it imports or starts, goes to the error output. They are texts to us (`source`), never
imported: what they say is read as the words of a stranger, for the code that they try out runs beside them.
"""

from __future__ import annotations

from importlib.resources import files


def source(name: str) -> str:
    """The text of the probe called ``name``."""
    return files(__name__).joinpath(f"{name}.py").read_text()
