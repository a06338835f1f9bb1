"""The configuration that Ray Serve writes for HAProxy, amended.

Every rule finds its place in what this Ray writes.
"""

from pathlib import Path

from serve.haproxy import amended

RAYS = """global
    stats socket /x/admin.sock mode 666
defaults
    mode http
    timeout client 3600s
    retry-on conn-failure
    errorfile 502 /x/500.http
    errorfile 503 /x/500.http
frontend prometheus
    bind :9101
frontend http_frontend
    bind 127.0.0.1:8000
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path not found."
backend lipi
    default-server fall 2 inter 5s check
    server one 127.0.0.1:30001 check observe layer4 error-limit 3 on-error mark-down
    server fallback 127.0.0.1:8500 check backup
listen stats
  bind *:8404
"""


def test_rays_configuration_is_amended_where_it_has_to_be() -> None:
    found = amended(RAYS, Path("/f"), 96, 30.0).splitlines()
    assert [line.strip() for line in found if "bind" in line] == [
        "bind 127.0.0.1:9101",
        "bind 127.0.0.1:8000",
        "bind 127.0.0.1:8404",
    ]
    assert (
        "    server one 127.0.0.1:30001 check observe layer4 error-limit 3 on-error mark-down "
        "maxconn 96" in found
    )
    assert "    server fallback 127.0.0.1:8500 check backup" in found
    assert "    http-request return status 503 errorfile /f/503.http" in found
    assert [line.strip() for line in found if "errorfile 50" in line] == [
        "errorfile 502 /f/503.http",
        "errorfile 503 /f/503.http",
    ]
    assert found[found.index("defaults") + 1 :][:4] == [
        "    option http-buffer-request",
        "    timeout http-request 30000ms",
        "    timeout queue 20ms",
        "    errorfile 408 /f/408.http",
    ]
    assert "    timeout client 35000ms" in found
