"""Writes what is really installed into the image's last layer; run in the image, by its own Python."""

import importlib.metadata
import json
import sysconfig
from email.parser import HeaderParser
from pathlib import Path

PLACE = Path("/opt/patchstack/dependencies.json")
INSTALLED = "install ok installed"

root = sysconfig.get_path("purelib")
python = sorted({(dist.metadata["Name"], dist.version) for dist in importlib.metadata.distributions(path=[root])})
records = [HeaderParser().parsestr(text) for text in Path("/var/lib/dpkg/status").read_text().split("\n\n")]
debian = sorted((record["Package"], record["Version"]) for record in records if record["Status"] == INSTALLED)
packages = [
    *({"kind": "debian", "name": name, "version": version} for name, version in debian),
    *({"kind": "python", "name": name, "version": version} for name, version in python),
]
PLACE.parent.mkdir(parents=True, exist_ok=True)
PLACE.write_text(json.dumps({"schema_version": 1, "root": root, "packages": packages}, indent=1) + "\n")
