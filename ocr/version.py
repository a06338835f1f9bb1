"""The version of lipi-ocr, also of a checkout that Ray carries to a node and nobody installs."""

VERSION = "0.1.0"
