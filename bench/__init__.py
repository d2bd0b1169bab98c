"""Measures what Stackyard promises about speed, on bare machines that it makes for that.

`python -m bench` runs all of it, `python -m bench NAME...` a part; `--help` lists the parts.
"""
