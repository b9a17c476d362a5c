"""Measurements: ratios between us and a peer or a limit, taken in one run. `./dev bench`."""
