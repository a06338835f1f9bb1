"""What one request of corrections may cost is bounded for all its documents and lines together,
and so is what all requests may store.
"""

import base64
import io
import json
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
from PIL import Image

from ocr.images import encode_image
from serve.config import LimitSettings
from serve.corrections import Corrections, CorrectionsRequest
from serve.errors import Refused
from serve.store import Store
from tests.support.bombs import noise, pixel_bomb

SIDE = 1000


def asked(*given: dict[str, Any], **images: bytes) -> CorrectionsRequest:
    encoded = {name: base64.b64encode(image).decode() for name, image in images.items()}
    values = {"images": encoded, "corrections": list(given)}
    return CorrectionsRequest.model_validate_json(json.dumps(values))


def made(tmp_path: Path, **limits: Any) -> Corrections:
    return Corrections(Store(str(tmp_path)), LimitSettings(**limits))


def whole(degrees: float = 0.0, side: float = SIDE) -> dict[str, Any]:
    polygon = [[0, 0], [side, 0], [side, side], [0, side]]
    return {"image": "a", "text": "x", "polygon": polygon, "degrees": degrees}


def stored(tmp_path: Path) -> int:
    return len(list(tmp_path.glob("corrections/*.json")))


def tiff(pages: int) -> bytes:
    images = [Image.fromarray(noise(60, 80, seed)) for seed in range(pages)]
    buffer = io.BytesIO()
    images[0].save(buffer, "TIFF", save_all=True, append_images=images[1:])
    return buffer.getvalue()


def test_lines_are_cut_one_at_a_time(tmp_path: Path) -> None:
    corrections = made(tmp_path)
    many = [whole(1 + each / 100, SIDE - 9 * each) for each in range(20)]
    tracemalloc.start()
    found = corrections.put(asked(*many, a=pixel_bomb(SIDE, SIDE)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(found["ids"])) == stored(tmp_path) == 20
    assert peak < 2 * SIDE**2, "bytes: twenty lines of more than a million pixels each"


def test_a_page_that_is_cut_a_thousand_times_is_refused(tmp_path: Path) -> None:
    corrections = made(tmp_path, max_pixels=SIDE**2)
    began = time.process_time()
    with pytest.raises(Refused, match=r"too many pixels: corrections\[3\]: send fewer") as refused:
        corrections.put(asked(*[whole(1) for _ in range(1000)], a=pixel_bomb(SIDE, SIDE)))
    assert (refused.value.status, refused.value.code) == (422, "too_many_pixels")
    assert time.process_time() - began < 2
    thin = {**whole(45), "polygon": [[0, 0], [SIDE, 0], [SIDE, 9], [0, 9]]}
    with pytest.raises(Refused, match="too many pixels"):
        corrections.put(asked(*[thin for _ in range(9)], a=pixel_bomb(SIDE, SIDE)))
    assert stored(tmp_path) == 0


def test_all_documents_together_have_as_many_pages_as_a_request_may(tmp_path: Path) -> None:
    corrections = made(tmp_path, max_pages=4)
    given = [{"image": name, "page": 3, "text": "x"} for name in ("a", "b")]
    with pytest.raises(Refused, match=r"images\.b|too many pages") as refused:
        corrections.put(asked(*given, a=tiff(3), b=tiff(3)))
    assert (refused.value.code, stored(tmp_path)) == ("too_many_pages", 0)
    pictures = {f"p{each}": encode_image(noise(20, 30, each)) for each in range(12)}
    lines = [{"image": name, "text": "x"} for name in pictures]
    assert corrections.put(asked(*lines, **pictures))["stored"] == 12


def test_several_pages_and_images_keep_the_order_of_the_corrections(tmp_path: Path) -> None:
    corrections = made(tmp_path)
    places = [("a", 2), ("b", 1), ("a", 1), ("b", 3), ("a", 2)]
    given = [{"image": name, "page": page, "text": "x"} for name, page in places]
    ids = corrections.put(asked(*given, a=tiff(2), b=tiff(4)))["ids"]
    alone = [
        corrections.put(asked({**one, "image": "c"}, c=tiff(2 if one["image"] == "a" else 4)))
        for one in given
    ]
    assert ids == [one["ids"][0] for one in alone]
    assert (ids[0], ids[1]) == (ids[4], ids[2])


def test_nothing_is_stored_after_the_deadline(tmp_path: Path) -> None:
    corrections = made(tmp_path)
    with pytest.raises(TimeoutError):
        corrections.put(asked(whole(), a=pixel_bomb(SIDE, SIDE)), time.monotonic() - 1)
    assert stored(tmp_path) == 0


def test_those_that_wait_for_another_request_are_few(tmp_path: Path) -> None:
    corrections, statuses = made(tmp_path), list[int]()
    request = asked(whole(), a=pixel_bomb(SIDE, SIDE))

    def put() -> None:
        try:
            corrections.put(request, time.monotonic() + 0.5)
        except Refused as refused:
            statuses.append(refused.status)
        except TimeoutError:
            statuses.append(504)

    with corrections._turn:  # a request that takes long
        threads = [threading.Thread(target=put) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (statuses.count(503), statuses.count(504)) == (12, 8)
    assert corrections.put(request)["stored"] == 1


def test_the_store_has_a_quota(tmp_path: Path) -> None:
    one = {"image": "a", "text": "x"}
    corrections = made(tmp_path, max_store_bytes=30_000)
    assert corrections.put(asked(one, a=encode_image(noise(100, 200))))["stored"] == 1
    with pytest.raises(Refused, match=r"at most 30,000 .*limits\.max_store_bytes") as refused:
        corrections.put(asked(one, a=encode_image(noise(100, 201))))
    assert (refused.value.status, refused.value.code) == (507, "store_full")
    assert stored(tmp_path) == 1
    with pytest.raises(Refused, match="at most 30,000"):
        made(tmp_path, max_store_bytes=30_000).put(asked(one, a=encode_image(noise(100, 202))))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_no_polygon(number: str) -> None:
    polygon = [[0, 0], [9, 0], [9, json.loads(number)]]
    with pytest.raises(pydantic.ValidationError):
        asked({"image": "a", "text": "x", "polygon": polygon}, a=b"")


@pytest.mark.filterwarnings("error")
def test_a_polygon_as_far_as_numbers_go_is_cut_to_the_page(tmp_path: Path) -> None:
    corrections = made(tmp_path)
    page = encode_image(np.full((50, 60), 255, np.uint8))
    far = [[-1e300, -1e300], [1e300, -1e300], [1e300, 1e300], [-1e300, 1e300]]
    found = corrections.put(asked({"image": "a", "text": "x", "polygon": far}, a=page))
    assert found["ids"] == corrections.put(asked({"image": "a", "text": "x"}, a=page))["ids"]
    away = [[1e300, 1e300], [1e301, 1e300], [1e301, 1e301]]
    with pytest.raises(Refused, match="polygon"):
        corrections.put(asked({"image": "a", "text": "x", "polygon": away}, a=page))
