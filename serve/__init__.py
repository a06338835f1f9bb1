"""The HTTP endpoint: Ray Serve application, web page, corrections, promotion (to come; see docs/design.md)."""
