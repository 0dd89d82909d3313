"""What the page's processes run. Knows medseg and files, no streamlit; nothing here runs in the server itself.

Three kinds of process: one reads scans as soon as they arrive (`look`), one segments (`segment`), one does what
people ask for afterwards (`tasks`: forecasts, exports, corrections, surfaces, comparisons). The server reads
what they leave in the study's private folder (`app.scans`, `app.results`).
"""
