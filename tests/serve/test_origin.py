"""Whose requests an endpoint answers, by their headers, and what its settings make of keys."""

from typing import Any

import pytest
from starlette.datastructures import Headers

from ocr.errors import UserError
from ocr.settings import parse_settings
from serve.config import ServeConfig
from serve.errors import Refused
from serve.origin import require_json, require_own_origin

KEY = {"name": "a", "role": "read", "sha256": "0" * 64}


def config(**more: Any) -> ServeConfig:
    return parse_settings(ServeConfig, {"bundle": "odia", **more}, "serve")


def refusal(method: str, headers: dict[str, str], settings: ServeConfig) -> str | None:
    try:
        require_own_origin(method, Headers(headers), settings)
    except Refused as refused:
        return f"{refused.status} {refused.code}"
    return None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example:80",
        "",
        ":8000",
        "[::1",
        "a.example.evil.example",
        "1.2.3.4.5",
    ],
)
def test_another_name_is_not_answered_without_keys_or_where_names_are_set(host: str) -> None:
    for settings in (config(), config(api_keys=[KEY], allowed_hosts=["a.example"])):
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            assert refusal(method, {"host": host}, settings) == "421 unknown_host"


def test_a_name_is_answered_where_it_is_allowed_or_keys_are_set() -> None:
    assert refusal("GET", {"host": "A.example:443"}, config(allowed_hosts=["a.example"])) is None
    assert refusal("GET", {"host": "service.cluster.local"}, config(api_keys=[KEY])) is None


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH", "TRACE"])
def test_other_sites_change_nothing_with_keys_or_without(method: str) -> None:
    own = {"host": "localhost:8000"}
    foreign = ["http://evil.example", "null", "http://localhost", "http://localhost:8001", "x"]
    foreign += ["https://localhost:80", "file://", "http://localhost:8000.evil.example", "http://["]
    for settings in (config(), config(api_keys=[KEY])):
        for origin in foreign:
            found = refusal(method, {**own, "origin": origin}, settings)
            assert found == "403 cross_site", origin
        for site in ("cross-site", "same-site", "x"):
            found = refusal(method, {**own, "sec-fetch-site": site}, settings)
            assert found == "403 cross_site"
        for good in ({"origin": "http://localhost:8000"}, {"sec-fetch-site": "same-origin"}, {}):
            assert refusal(method, {**own, **good}, settings) is None
        assert refusal("GET", {**own, "origin": "http://evil.example"}, settings) is None


def test_a_proxy_that_changes_the_host_is_known_by_its_name() -> None:
    headers = {"host": "127.0.0.1:8000", "origin": "https://a.example"}
    assert refusal("POST", headers, config(allowed_hosts=["a.example"])) is None
    assert refusal("POST", headers, config()) == "403 cross_site"
    standard = {"host": "a.example", "origin": "https://a.example:443"}
    assert refusal("POST", standard, config(api_keys=[KEY])) is None


@pytest.mark.parametrize("kind", [None, "text/plain", "application/jsonp", "multipart/form-data"])
def test_what_is_no_json_is_not_taken_for_it(kind: str | None) -> None:
    require_json(Headers({"content-type": "Application/JSON; charset=utf-8"}))
    with pytest.raises(Refused, match="expected application/json"):
        require_json(Headers({"content-type": kind} if kind else {}))
    twice = [(b"content-type", b"text/plain"), (b"content-type", b"application/json")]
    with pytest.raises(Refused):
        require_json(Headers(raw=twice))


def test_nobody_promotes_unasked_where_keys_are_set() -> None:
    assert config().promotes_when_sure
    assert not config(api_keys=[KEY]).promotes_when_sure
    assert not config(api_keys_sha256=["0" * 64]).promotes_when_sure
    assert config(api_keys=[KEY], promote_when_sure=True).promotes_when_sure
    assert not config(promote_when_sure=False).promotes_when_sure


def test_keys_of_earlier_versions_may_do_everything() -> None:
    (key,) = config(api_keys_sha256=["ab" * 32]).keys
    assert (key.name, key.role) == ("key abababab", "train")


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ([{**KEY, "sha256": "my secret"}], "expected SHA-256 in hex"),
        ([{**KEY, "role": "admin"}], "'read', 'correct' or 'train'"),
        ([{**KEY, "name": "a\nb"}], "name"),
        ([KEY, {**KEY, "sha256": "1" * 64}], "the name a is given twice"),
        ([KEY, {**KEY, "name": "b"}], "is given twice"),
    ],
)
def test_faulty_keys_are_refused_and_not_shown(keys: list[dict[str, str]], says: str) -> None:
    with pytest.raises(UserError) as caught:
        config(api_keys=keys)
    assert says in str(caught.value)
    assert "my secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["http://a.example", "a.example:443", "*", "a b"])
def test_allowed_hosts_are_names_alone(name: str) -> None:
    with pytest.raises(UserError, match="expected names without scheme and port"):
        config(allowed_hosts=[name])
