"""Words that forms have beside their numbers, script by script."""

from collections.abc import Callable
from dataclasses import dataclass


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LATIN_WORDS = _words(
    """No. Ltd. Co. A4 PDF Email www Tel Fax ID PIN GST PAN ISO Covid-19 Line Facebook Google
    Windows Word Excel Internet Bank Road Street Model Version Page Total Name Date Mr. Mrs.
    Dr. km kg cm mm GB USB LED TV SMS ATM QR Wi-Fi Hotel School Office Certificate and the
    of for Thailand India Odisha Bangladesh Dhaka Bhubaneswar Bangkok English"""
)


@dataclass(frozen=True)
class Vocabulary:
    """Words of forms in one script: months, units after a number, labels before one, titles."""

    months: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    letters: str = ""  # of lists: (a) (b) (c)
    era: str = ""
    years_later: int = 0  # than the common era's
    currency: str = ""
    number_words: Callable[[int], str] | None = None


def thai_number(number: int) -> str:
    """Return a number below ten million in Thai words, as sums of official papers have it."""
    digits = ("ศูนย์", "หนึ่ง", "สอง", "สาม", "สี่", "ห้า", "หก", "เจ็ด", "แปด", "เก้า")
    places = ("", "สิบ", "ร้อย", "พัน", "หมื่น", "แสน", "ล้าน")
    if number == 0:
        return digits[0]
    written = str(number)
    words = ""
    for position, figure in enumerate(map(int, written)):
        place = len(written) - 1 - position
        if figure == 0:
            continue
        word = digits[figure]
        if place == 0 and figure == 1 and number > 10:
            word = "เอ็ด"
        elif place == 1:
            word = {1: "", 2: "ยี่"}.get(figure, word)
        words += word + places[place]
    return words


VOCABULARIES = {
    "Thai": Vocabulary(
        months=_words(
            """มกราคม กุมภาพันธ์ มีนาคม เมษายน พฤษภาคม มิถุนายน กรกฎาคม สิงหาคม กันยายน ตุลาคม
            พฤศจิกายน ธันวาคม ม.ค. ก.พ. มี.ค. เม.ย. พ.ค. มิ.ย. ก.ค. ส.ค. ก.ย. ต.ค. พ.ย. ธ.ค."""
        ),
        units=_words(
            """บาท คน ฉบับ ราย แห่ง หน่วย ชุด ครั้ง วัน เดือน ปี เล่ม ตัว หลัง ไร่ กิโลเมตร
            ตารางเมตร น. หมู่ แผ่น ใบ ล้านบาท เปอร์เซ็นต์ ข้อ มาตรา ตำบล อำเภอ จังหวัด"""
        ),
        labels=_words(
            """ข้อ เลขที่ หมู่ที่ วันที่ ที่ โทร. โทรศัพท์ ลำดับที่ หน้า บทที่ มาตรา ฉบับที่
            ครั้งที่ เขตที่ ห้อง ชั้น รหัส จำนวน รวม ราคา อายุ เวลา ปี ระดับ ประมาณ ไม่เกิน"""
        ),
        titles=("นาย", "นาง", "นางสาว", "ดร. ", "พล.อ. ", "ด.ช. ", "ด.ญ. ", "ศ. "),
        letters="กขคงจฉช",
        era="พ.ศ.",
        years_later=543,
        currency="฿",
        number_words=thai_number,
    ),
    "Oriya": Vocabulary(
        months=_words(
            """ଜାନୁଆରୀ ଫେବୃଆରୀ ମାର୍ଚ୍ଚ ଅପ୍ରେଲ ମଇ ଜୁନ ଜୁଲାଇ ଅଗଷ୍ଟ ସେପ୍ଟେମ୍ବର ଅକ୍ଟୋବର ନଭେମ୍ବର
            ଡିସେମ୍ବର ବୈଶାଖ ଜ୍ୟେଷ୍ଠ ଆଷାଢ଼ ଶ୍ରାବଣ ଭାଦ୍ରବ ଆଶ୍ୱିନ କାର୍ତ୍ତିକ ମାର୍ଗଶିର ପୌଷ ମାଘ
            ଫାଲ୍ଗୁନ ଚୈତ୍ର"""
        ),
        units=_words(
            """ଟଙ୍କା ଜଣ ଟି ପ୍ରତିଶତ କିଲୋମିଟର ଘଣ୍ଟା ମିନିଟ ଦିନ ମାସ ବର୍ଷ ଏକର କେଜି ଲିଟର ଲକ୍ଷ କୋଟି
            ହଜାର ଖଣ୍ଡ ପୃଷ୍ଠା ଥର"""
        ),
        labels=_words(
            """କ୍ରମିକ ନଂ ତାରିଖ ପୃଷ୍ଠା ଫୋନ ମୋଟ ମୂଲ୍ୟ ବୟସ ସମୟ ଅଧ୍ୟାୟ ଧାରା ଶ୍ରେଣୀ ୱାର୍ଡ ପିନ ଖାତା
            ପ୍ଲଟ ସଂଖ୍ୟା ପ୍ରାୟ"""
        ),
        titles=("ଶ୍ରୀ ", "ଶ୍ରୀମତୀ ", "ଡଃ ", "କୁମାରୀ ", "ସ୍ୱର୍ଗତ "),
        letters="କଖଗଘଙଚଛ",
        currency="₹",
    ),
    "Bengali": Vocabulary(
        months=_words(
            """জানুয়ারি ফেব্রুয়ারি মার্চ এপ্রিল মে জুন জুলাই আগস্ট সেপ্টেম্বর অক্টোবর নভেম্বর
            ডিসেম্বর বৈশাখ জ্যৈষ্ঠ আষাঢ় শ্রাবণ ভাদ্র আশ্বিন কার্তিক অগ্রহায়ণ পৌষ মাঘ
            ফাল্গুন চৈত্র"""
        ),
        units=_words(
            """টাকা জন টি শতাংশ কিলোমিটার ঘণ্টা মিনিট দিন মাস বছর একর কেজি লিটার লাখ কোটি হাজার
            খণ্ড পৃষ্ঠা বার বিঘা"""
        ),
        labels=_words(
            """ক্রমিক নং তারিখ পৃষ্ঠা ফোন মোট মূল্য বয়স সময় অধ্যায় ধারা শ্রেণি ওয়ার্ড
            খতিয়ান দাগ সংখ্যা প্রায় রোল মোবাইল"""
        ),
        titles=("মোঃ ", "জনাব ", "শ্রী ", "ডাঃ ", "বেগম ", "মিসেস "),
        letters="কখগঘঙচছ",
        currency="৳",
    ),
}
