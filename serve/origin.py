"""Which web pages may ask: Host, Origin, Sec-Fetch-Site and Content-Type of a request.

A page of another site can send requests from a browser on this machine. It cannot read their
answers, unless its name leads here (DNS rebinding), so names are checked. It may not change
anything either, so a POST and a DELETE must come from the endpoint's own page, or from no page.
"""

import functools
import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from serve.config import ServeConfig
from serve.errors import Refused

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_OWN_SITES = ("same-origin", "none")  # none: no page at all
_PORTS = {"http": 80, "https": 443}


def require_own_origin(method: str, headers: Headers, config: ServeConfig) -> None:
    """Raise Refused 421 for a host that is not this endpoint's, 403 for another site's request.

    An address as host is always taken: rebinding needs a name. Where keys are set and
    `allowed_hosts` is empty any name is: a page that was led here has no key.
    """
    allowed = config.allowed_hosts
    hosts = headers.getlist("host")
    if allowed or not config.keys:
        for host in hosts:
            if not _is_own(host, allowed):
                raise _unknown(host)
    if method in SAFE_METHODS:
        return
    site = headers.get("sec-fetch-site", "none")
    origins = headers.getlist("origin")
    if site not in _OWN_SITES or not all(_is_same(each, hosts, allowed) for each in origins):
        asked_by = ", ".join(origins)[:100] or f"a page that is {site[:40]}"
        raise Refused(403, "cross_site", f"requests of {asked_by} may change nothing here")


def require_json(headers: Headers) -> None:
    """Raise Refused 415 unless the only Content-Type is application/json."""
    kinds = [each.partition(";")[0].strip().lower() for each in headers.getlist("content-type")]
    if kinds != ["application/json"]:
        message = f"Content-Type: expected application/json, got {', '.join(kinds)[:80] or 'none'}"
        raise Refused(415, "unsupported_media_type", message)


def _unknown(host: str) -> Refused:
    name = _name(host)
    message = (
        f"Host: {name[:100]}: this endpoint is reached as localhost, by an address, or by a name "
        "in allowed_hosts; add the name there if it is this endpoint's"
    )
    return Refused(421, "unknown_host", message)


@functools.lru_cache(maxsize=1024)
def _is_own(host: str, allowed: tuple[str, ...]) -> bool:
    name = _name(host)
    if name == "localhost" or name in allowed:
        return True
    try:
        ipaddress.ip_address(name[1:-1] if name[:1] + name[-1:] == "[]" else name)
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    """Return a host without its port."""
    name, colon, port = host.strip().lower().rpartition(":")
    is_port = bool(colon) and (port.isdecimal() or not port) and not name.endswith(":")
    return (name if is_port else host.strip().lower()).rstrip(".")


def _is_same(origin: str, hosts: Sequence[str], allowed: tuple[str, ...]) -> bool:
    """Return whether an Origin is the host that was asked, or one that a proxy asked for."""
    scheme = origin.partition(":")[0].strip().lower()
    try:
        given = _place(origin, scheme)
        own = [_place(f"{scheme}://{host}", scheme) for host in hosts]
    except ValueError:
        return False
    return scheme in _PORTS and given[0] != "" and (given[0] in allowed or given in own)


def _place(url: str, scheme: str) -> tuple[str, int | None]:
    parts = urlsplit(url.strip().lower())
    return parts.hostname or "", parts.port or _PORTS.get(scheme)
