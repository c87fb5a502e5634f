"""Import what a server imports before it looks for a device; run in the image while it is built."""

from importlib import import_module

import_module("sglang")
