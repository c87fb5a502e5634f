"""Every word that a user reads: terminal, Markdown, JSON."""
