"""The OpenAPI document as a page that needs neither scripts nor the internet."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2


@cache
def _template() -> jinja2.Template:
    folder = Path(__file__).parent
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("docs.html.j2")


def page(document: dict[str, Any]) -> str:
    """HTML: every route with what it takes, what it answers, and a curl command."""
    found = [
        {
            "method": method.upper(),
            "path": path,
            "about": operation.get("description", ""),
            "takes": list(operation.get("requestBody", {}).get("content", {})),
            "answers": {
                status: answered.get("description", "")
                for status, answered in operation["responses"].items()
            },
            "curl": _curl(path, method, operation, document),
        }
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return _template().render(
        title=document["info"]["title"], about=document["info"]["description"], routes=found
    )


def _curl(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> list[str]:
    address = f"http://127.0.0.1:8000{path}"
    if method == "get":
        return [f"curl {address}"]
    given = {
        "image/png": "--data-binary @line.png -H 'Content-Type: image/png'",
        "application/pdf": "--data-binary @scan.pdf -H 'Content-Type: application/pdf'",
        "multipart/form-data": "-F image=@one.png -F image=@two.png",
    }
    content = operation.get("requestBody", {}).get("content", {})
    asked = {"application/pdf": f"'{address}?level=page'"}
    return [
        f"curl {given.get(kind) or _json_words(path, value.get('schema', {}), document)} {asked.get(kind, address)}"
        for kind, value in content.items()
    ]


def _json_words(path: str, schema: dict[str, Any], document: dict[str, Any]) -> str:
    if path == "/v1/ocr":
        example: Any = {"images": ["BASE64", "BASE64"]}
    elif path == "/v1/chat/completions":
        url = {"type": "image_url", "image_url": {"url": "data:image/png;base64,BASE64"}}
        example = {"messages": [{"role": "user", "content": [url]}]}
    else:
        properties = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]][
            "properties"
        ]
        example = {
            name: value["examples"][0] for name, value in properties.items() if "examples" in value
        }
        if path == "/v1/corrections":
            example["corrections"] = [{"image": "page", "text": "…"}]
    return f"-d '{json.dumps(example)}' -H 'Content-Type: application/json'"
