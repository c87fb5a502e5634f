"""One module a verb or two: where the stages meet, each value written into the run folder."""
