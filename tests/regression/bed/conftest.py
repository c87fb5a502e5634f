"""Who looks after the bed's own controls: read from this file, never imported (`regress/declared.py`)."""

OWNER = "@acme/sglang-maintainers"
