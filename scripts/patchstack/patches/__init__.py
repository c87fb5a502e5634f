"""Take the series and its headers to topics; lint, export, edit."""
