"""Take refs of the remote to admitted pull requests at exact SHAs."""
