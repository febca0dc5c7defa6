"""The explorer: a local web page over a finished run, to see why clips were chosen and to correct it.

`serve.serve_explorer` opens a run and answers a browser. The computed selection is only read; what a
person decides is kept beside it (`curation`).
"""
