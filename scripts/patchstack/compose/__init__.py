"""Take candidates to one octopus commit, and to what was left out and why."""
