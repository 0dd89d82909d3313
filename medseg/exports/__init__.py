"""A result as files for other programs: archives, planning systems, Slicer, printers, people.

Knows results, scans and models; no network and no page. highdicom, scikit-image and reportlab are imported
when they are used (`pip install 'medseg[exports]'`).
"""

from __future__ import annotations

from medseg.exports.formats import FORMATS, Order, export, order_for, parse_formats
