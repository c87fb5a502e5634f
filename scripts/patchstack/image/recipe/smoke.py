"""Import what a server imports before it looks for a device; run in the image while it is built."""

from importlib import import_module
from pathlib import Path

for name in Path(__file__).with_name("smoke.txt").read_text().split():
    import_module(name)
