"""`make bench`: what composition, import and decision cost on this machine, beside something known, in one run.

`measure` takes the times, `ground` makes the repositories; `composition`, `imports`, `decision` and `standing` are
the measurements of nights; `record` is the JSON file that a later run compares with, `table` what a person sees.
"""
