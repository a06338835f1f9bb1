"""What the XML formats share: elements, points, and the file."""

from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from ocr.images import Polygon


def child(parent: Element, tag: str, text: str | None = None, /, **attributes: Any) -> Element:
    """Return a new element inside `parent`; attributes that are None are left out."""
    given = {key: str(value) for key, value in attributes.items() if value is not None}
    element = SubElement(parent, tag, given)
    if text is not None:
        element.text = without_controls(text)
    return element


def points(polygon: Polygon, size: tuple[int, int]) -> str:
    """Return `x,y x,y …` in whole pixels inside a page of `size`, width and height."""
    width, height = size
    whole = [
        (min(width, max(0, round(float(x)))), min(height, max(0, round(float(y)))))
        for x, y in polygon
    ]
    return " ".join(f"{x},{y}" for x, y in whole)


def without_controls(text: str) -> str:
    """Return a text without the control characters that XML 1.0 forbids."""
    return "".join(c for c in text if c >= " " or c in "\t\n\r")


def as_file(root: Element, doctype: str = "") -> bytes:
    """Return the document as UTF-8, indented."""
    indent(root)
    body = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{doctype}{body}\n'.encode()
