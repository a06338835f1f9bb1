"""The Thai dictionary of 880 written units: `python -m ocr.sources.thai_dictionary > configs/thai/th_dict.txt`.

Every Thai letter, sign and digit that stands alone (70), every visible ASCII character (94), and every consonant with its vowel or tone marks, one
grapheme cluster, that the Thai Textbook Corpus holds at least six times (716; counts of PyThaiNLP's ttc_freq.txt, CC0).

Marks that stand alone, SARA AM among them, are left out: nobody writes one without a consonant, and faces draw it beside nothing, or a dotted circle.
The units with a consonant cover 99.99 % of those of the corpus, and 99.96 % of those of government news (thaigov).
"""

import string

from ocr.text import graphemes

_THAI = range(0x0E01, 0x0E5C)
_WITH_MARKS = """
กั กั่ กั้ กำ กิ กิ่ กิ้ กิ๊ กี กี่ กี้ กี๊ กี๋ กึ กึ่ กื กื้ กุ กุ่ กุ้ กุ๊ กู กู่ กู้ ก็ ก่ ก่ำ ก้ ก้ำ ก๊ ก๋ ก์
ขั ขั้ ขำ ขิ ขี ขี่ ขี้ ขึ ขึ้ ขื ขื่ ขุ ขุ่ ขู ขู่ ข็ ข่ ข้ ข์
คั คั่ คั้ คำ คิ คิ้ คี คี่ คี้ คึ คึ่ คื คุ คุ่ คุ้ คู คู่ คู้ ค็ ค่ ค่ำ ค้ ค้ำ ค์
ฆั ฆี่ ฆ่ ฆ้ ฆ์
งั งั้ งำ งิ งิ้ งี งี่ งี้ งึ งื งื่ งื้ งุ งุ่ งู ง็ ง่ ง้ ง้ำ
จั จั่ จั้ จั๊ จำ จิ จิ่ จิ้ จิ๊ จิ๋ จี จี่ จี้ จี๊ จี๋ จึ จึ่ จื จื่ จื้ จุ จุ่ จุ้ จุ๊ จุ๋ จู จู่ จู้ จู๋ จ็ จ่ จ้ จ้ำ จ๊ จ๋ จ์
ฉั ฉิ ฉิ่ ฉี ฉี่ ฉื ฉื่ ฉุ ฉู ฉู่ ฉ่ ฉ่ำ ฉ้
ชั ชั่ ชั้ ชำ ชิ ชิ้ ชี ชี่ ชี้ ชื ชื่ ชื้ ชุ ชุ่ ชู ชู้ ช็ ช่ ช่ำ ช้ ช้ำ ช์
ซั ซิ ซิ่ ซิ้ ซี ซี่ ซี้ ซึ ซึ่ ซึ้ ซื ซื่ ซื้ ซุ ซุ่ ซุ้ ซู ซู่ ซ็ ซ่ ซ้ ซ้ำ ซ์
ฌิ
ญั ญิ ญี่ ญู ญ่ ญ้ ญ์
ฎี
ฏั ฏิ ฏ์
ฐั ฐิ ฐี ฐ์
ฑิ ฑี ฑู ฑ์
ฒิ ฒ่
ณั ณิ ณี ณุ ณู ณ์
ดั ดั่ ดั้ ดำ ดิ ดิ่ ดิ้ ดิ์ ดี ดี่ ดี๋ ดึ ดื ดื่ ดื้ ดุ ดุ่ ดุ้ ดู ดู่ ด็ ด่ ด่ำ ด้ ด๋ ด์
ตั ตั่ ตั้ ตั๊ ตั๋ ตำ ติ ติ่ ติ้ ติ๊ ติ๋ ติ์ ตี ตี่ ตี้ ตี๋ ตึ ตึ้ ตื ตื่ ตื้ ตื๋ ตุ ตุ่ ตุ้ ตุ๊ ตู ตู่ ตู้ ต็ ต่ ต่ำ ต้ ต๊ ต๋ ต์
ถั ถั่ ถิ ถิ่ ถี ถี่ ถึ ถื ถื่ ถุ ถุ์ ถู ถ่ ถ้ ถ้ำ ถ์
ทั ทั่ ทั้ ทำ ทิ ทิ่ ทิ้ ที ที่ ทึ ทึ่ ทึ้ ทื ทื่ ทุ ทุ่ ทุ้ ทู ทู่ ทู้ ท็ ท่ ท้ ท์
ธั ธำ ธิ ธิ์ ธี ธุ ธุ์ ธู ธ่ ธ์
นั นั่ นั้ นำ นิ นิ่ นิ้ นี นี่ นี้ นึ นึ่ นื นื่ นื้ นุ นุ่ นู น็ น่ น่ำ น้ น้ำ น์
บั บั่ บั้ บำ บิ บิ่ บี บี่ บี้ บึ บึ่ บึ้ บื บื่ บื้ บุ บุ่ บุ้ บู บู่ บ็ บ่ บ้ บ๊ บ๋
ปั ปั่ ปั้ ปั๊ ปิ ปิ่ ปิ้ ปี ปี่ ปี้ ปี๊ ปี๋ ปึ ปื ปื่ ปื้ ปุ ปุ่ ปุ้ ปุ๊ ปุ๋ ปู ปู่ ป็ ป่ ป่ำ ป้ ป๊ ป๋ ป์
ผั ผิ ผี ผึ ผึ่ ผึ้ ผื ผื่ ผุ ผู ผู้ ผ็ ผ่ ผ้
ฝั ฝั่ ฝิ่ ฝี ฝึ ฝื ฝุ่ ฝู ฝ่ ฝ้
พั พั่ พำ พิ พิ่ พี พี่ พี้ พึ พึ่ พื พื่ พื้ พุ พุ่ พุ้ พู พู่ พ็ พ่ พ้ พ์
ฟั ฟั่ ฟั้ ฟิ ฟี ฟี่ ฟื ฟื่ ฟื้ ฟุ ฟุ่ ฟุ้ ฟู ฟู่ ฟ่ ฟ้
ภั ภิ ภี ภุ ภู ภู่ ภ้ ภ์
มั มั่ มั้ มำ มิ มิ่ มิ้ มี มี่ มี้ มึ มื มื่ มื้ มุ มุ่ มุ้ มู มู่ ม็ ม่ ม่ำ ม้ ม์
ยั ยั่ ยั้ ยำ ยิ ยิ่ ยิ้ ยี ยี่ ยี้ ยึ ยื ยื่ ยื้ ยุ ยุ่ ยุ้ ยู ยู่ ย็ ย่ ย่ำ ย้ ย้ำ ย์
รั รั่ รั้ รำ ริ ริ่ ริ้ ริ๊ ริ๋ รี รี่ รี้ รี๊ รึ รึ่ รึ้ รื รื่ รื้ รุ รุ่ รุ้ รุ๊ รู รู่ รู้ รู๊ ร็ ร่ ร่ำ ร้ ร๊ ร๋ ร์
ลั ลั่ ลั้ ลั๊ ลำ ลิ ลิ่ ลิ้ ลี ลี่ ลี้ ลึ ลึ่ ลื ลื่ ลื้ ลุ ลุ่ ลุ้ ลู ลู่ ล็ ล่ ล่ำ ล้ ล้ำ ล์
วั วั่ วิ วิ่ วิ้ วี วี่ วี้ วุ วุ่ วุ้ วู วู่ วู้ ว็ ว่ ว่ำ ว้ ว์
ศั ศิ ศี ศึ ศุ ศู ศ์
ษั ษิ ษี ษุ ษ์
สั สั่ สั้ สำ สิ สิ่ สิ้ สี สี่ สี้ สึ สื สื่ สื้ สุ สุ่ สุ้ สุ์ สู สู่ สู้ ส็ ส่ ส่ำ ส้ ส์
หั หั่ หิ หิ่ หิ้ หี หี่ หี้ หึ หึ่ หื หุ หุ่ หุ้ หู หู่ หู้ ห็ ห่ ห้ ห้ำ ห์
ฬิ
อั อั้ อั๊ อั๋ อำ อิ อิ่ อิ๊ อี อี่ อี้ อี๊ อึ อึ่ อึ้ อื อื่ อื้ อุ อุ่ อุ้ อุ๊ อู อู่ อู้ อู๊ อ็ อ่ อ้ อ้ำ อ๊ อ๋
ฮั ฮั่ ฮิ ฮี้ ฮึ ฮื ฮื่ ฮื้ ฮุ ฮู ฮ่ ฮ้
"""


def entries() -> list[str]:
    """The 880 entries, normalised: Thai characters, ASCII digits, Latin letters, symbols, then consonants with marks."""
    thai = [character for character in map(chr, _THAI) if character.isprintable() and _stands_alone(character)]
    return [*thai, *string.digits, *string.ascii_uppercase, *string.ascii_lowercase, *string.punctuation, *_WITH_MARKS.split()]


def _stands_alone(character: str) -> bool:
    """Whether it begins a written unit of its own after a consonant, as no mark does."""
    return len(graphemes(f"ก{character}")) == 2


if __name__ == "__main__":
    print("\n".join(entries()))
