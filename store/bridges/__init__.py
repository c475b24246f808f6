"""A store as what other libraries and notebooks know: pandas, xarray, a torch Dataset, a few lines of HTML.

`Bridges` gives `Store` its methods; what they need is imported when they are called.
"""
