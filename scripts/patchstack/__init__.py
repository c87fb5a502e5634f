"""patchstack: composes SGLang patches and pull requests every night, proves and promotes the result."""

__version__ = "0.1.0"
