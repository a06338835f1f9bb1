"""A font without shapes: text in it is invisible, and copies and is found in any script.

As Tesseract's and OCRmyPDF's, every UTF-16 unit is a glyph of one width whose Unicode is itself, so
a reader of the PDF needs to know nothing of the script.
"""

import io
from functools import cache

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from pikepdf import Array, Dictionary, Name, Object, Pdf, String

WIDTH = 0.5  # of every glyph, in font sizes
_UNITS = 1000
# which Unicode each code has: itself, in ranges that keep the first byte
_TO_UNICODE = (
    b"/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n"
    b"/CIDSystemInfo <</Registry (Adobe) /Ordering (UCS) /Supplement 0>> def\n"
    b"/CMapName /Adobe-Identity-UCS def\n/CMapType 2 def\n"
    b"1 begincodespacerange\n<0000> <FFFF>\nendcodespacerange\n"
    + b"".join(
        b"%d beginbfrange\n" % len(part)
        + b"".join(b"<%02X00> <%02XFF> <%02X00>\n" % (high, high, high) for high in part)
        + b"endbfrange\n"
        for part in (range(start, min(start + 100, 256)) for start in range(0, 256, 100))
    )
    + b"endcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n"
)


def add_font(pdf: Pdf) -> Object:
    """Return the font, an indirect object of the PDF."""
    program = pdf.make_stream(_program())
    program.Length1 = len(_program())
    descriptor = pdf.make_indirect(
        Dictionary(
            Type=Name.FontDescriptor,
            FontName=Name.LipiInvisible,
            Flags=5,  # fixed pitch, symbolic
            FontBBox=Array([0, -200, int(WIDTH * _UNITS), 800]),
            ItalicAngle=0,
            Ascent=800,
            Descent=-200,
            CapHeight=800,
            StemV=80,
            FontFile2=program,
        )
    )
    cid = Dictionary(
        Type=Name.Font,
        Subtype=Name.CIDFontType2,
        BaseFont=Name.LipiInvisible,
        CIDSystemInfo=Dictionary(
            Registry=String("Adobe"), Ordering=String("Identity"), Supplement=0
        ),
        FontDescriptor=descriptor,
        DW=int(WIDTH * _UNITS),
        CIDToGIDMap=pdf.make_stream(b"\x00\x01" * 65536),
    )
    return pdf.make_indirect(
        Dictionary(
            Type=Name.Font,
            Subtype=Name.Type0,
            BaseFont=Name.LipiInvisible,
            Encoding=Name("/Identity-H"),
            DescendantFonts=Array([pdf.make_indirect(cid)]),
            ToUnicode=pdf.make_stream(_TO_UNICODE),
        )
    )


@cache
def _program() -> bytes:
    """Return a TrueType font of two glyphs: a stroke without area from corner to corner.

    It paints nothing, and has the extent of a letter: PDFium drops upright text without any.
    """
    builder = FontBuilder(_UNITS, isTTF=True)
    pen = TTGlyphPen(None)
    pen.moveTo((0, -200))
    pen.lineTo((int(WIDTH * _UNITS), 800))
    pen.closePath()
    names = [".notdef", "letter"]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({0x20: "letter"})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (int(WIDTH * _UNITS), 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "LipiInvisible", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.font["head"].created = builder.font["head"].modified = 0  # the same bytes every day
    buffer = io.BytesIO()
    builder.save(buffer)
    return buffer.getvalue()
