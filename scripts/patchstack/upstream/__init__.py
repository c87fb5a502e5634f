"""Take a release or a git ref to a base commit in the local store."""
