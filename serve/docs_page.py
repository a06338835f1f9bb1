"""The OpenAPI document as a page that needs neither scripts nor the internet."""

import json
from pathlib import Path
from typing import Any

from ocr.templates import environment

_URI = "data:image/png;base64,BASE64"
_CONFIG = "<View>…</View>"
_EXAMPLES: dict[str, Any] = {
    "/v1/ocr": {"images": ["BASE64", "BASE64"]},
    "/v1/chat/completions": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": _URI}}]}
        ]
    },
    "/setup": {"project": "1", "schema": _CONFIG},
    "/predict": {"tasks": [{"id": 1, "data": {"image": _URI}}], "label_config": _CONFIG},
    "/webhook": {"action": "ANNOTATION_CREATED", "annotation": {}, "task": {}},
}


def page(document: dict[str, Any], address: str) -> str:
    """Return HTML: every route with its request, its answers and a curl command to `address`."""
    described = [
        {
            "method": method.upper(),
            "path": path,
            "about": operation.get("description", ""),
            "takes": list(operation.get("requestBody", {}).get("content", {})),
            "answers": {
                status: answered.get("description", "")
                for status, answered in operation["responses"].items()
            },
            "curl": _curl(f"{address}{path}", path, method, operation, document),
        }
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    about, template = (
        document["info"],
        environment(Path(__file__).parent).get_template("docs.html.j2"),
    )
    return template.render(title=about["title"], about=about["description"], routes=described)


def _curl(
    address: str, path: str, method: str, operation: dict[str, Any], document: dict[str, Any]
) -> list[str]:
    if method != "post":
        return [f"curl {'' if method == 'get' else f'-X {method.upper()} '}{address}"]
    given = {
        "image/png": "--data-binary @line.png -H 'Content-Type: image/png'",
        "application/pdf": "--data-binary @scan.pdf -H 'Content-Type: application/pdf'",
        "multipart/form-data": "-F image=@one.png -F image=@two.png",
    }
    content = operation.get("requestBody", {}).get("content", {})
    asked = {"application/pdf": f"'{address}?level=page'"}
    commands = []
    for kind, value in content.items():
        body = given.get(kind) or _json_words(path, value.get("schema", {}), document)
        commands.append(f"curl {body} {asked.get(kind, address)}")
    return commands


def _json_words(path: str, schema: dict[str, Any], document: dict[str, Any]) -> str:
    if path in _EXAMPLES:
        return _data(_EXAMPLES[path])
    properties = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
    example = {
        name: value["examples"][0] for name, value in properties.items() if "examples" in value
    }
    if path == "/v1/corrections":
        example["corrections"] = [{"image": "page", "text": "…"}]
    return _data(example)


def _data(example: Any) -> str:
    return f"-d '{json.dumps(example, ensure_ascii=False)}' -H 'Content-Type: application/json'"
