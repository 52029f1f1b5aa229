"""A study: many recipes under one protocol, and one table.

`plan` reads the file, `run` works it off, `trial` is what one process does, `results` gathers.
"""
