"""`make bench`: what composition, import and decision cost on this machine, beside something known, in one run.

`measure` takes the times, `ground` makes the repositories; `composition`, `imports` and `decision` are the
measurements; `record` is the JSON file that a later run compares with, `table` what a person sees.
"""
