"""The same two pages in every form that ocr.sources reads; `python -m tests.pages` draws them
again.

The Odia page has a heading, a paragraph whose first line is hyphenated, and a region turned by a
quarter; the Thai page
has a region inside a region. The documents list regions in another order than they are read in.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
