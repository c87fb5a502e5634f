"""Build the image of a composition, push it by digest, look inside it, and say what is in it."""
