"""Writes the pages of the reference that come from running code: the command line, and HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from typer.main import get_command

from raysaga.api.cli import app
from raysaga.api.http import operating, reading, submitting, watching

METHODS = ("get", "post", "put", "delete")


def command_line_page() -> str:
    """Return every command with its help, arguments and options."""
    group = get_command(app)
    lines = ["# Command line", "", "What `raysaga COMMAND --help` tells, on one page.", ""]
    lines += [_paragraphs(group.help), "", _paragraphs(group.epilog), ""]
    lines += _commands(group, "raysaga")
    return "\n".join(lines) + "\n"


def _commands(group: Any, path: str) -> Iterator[str]:
    context = group.context_class(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield f"## `{path} {name}`"
        yield ""
        yield _paragraphs(command.help)
        yield ""
        yield from _parameters(command)
        if hasattr(command, "list_commands"):
            yield from _commands(command, f"{path} {name}")


def _parameters(command: Any) -> Iterator[str]:
    shown = [found for found in command.params if found.name != "help" and not found.hidden]
    if not shown:
        return
    yield "| | Means | Default |"
    yield "|---|---|---|"
    for found in shown:
        names = "/".join((*found.opts, *found.secondary_opts))
        if found.param_type_name == "argument":
            names = found.metavar or found.name.upper()
        default = found.default if isinstance(found.default, str | int | float) else None
        is_told = default is not None and not isinstance(default, bool)
        told = f"`{getattr(default, 'value', default)}`" if is_told else ""
        needed = "needed" if found.required else told
        yield f"| `{names}` | {_cell(found.help)} | {needed} |"
    yield ""


def http_page() -> str:
    """Return every operation of the HTTP interface, from its OpenAPI document."""
    served = FastAPI()
    for module in (submitting, reading, watching, operating):
        served.include_router(module.router)
    document = served.openapi()
    lines = ["# HTTP", "", "From the OpenAPI document that a server gives at `/openapi.json`.", ""]
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                lines += _operation(f"{method.upper()} {path}", operations[method])
    return "\n".join(lines) + "\n"


def _operation(title: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"## `{title}`"
    yield ""
    yield _paragraphs(operation.get("description") or operation.get("summary"))
    yield ""
    rows = [
        f"| `{given['name']}` | {given['in']} | {_cell(given.get('description'))} |"
        for given in operation.get("parameters", ())
    ]
    if rows:
        yield "| Parameter | In | Means |"
        yield "|---|---|---|"
        yield from rows
        yield ""
    yield "| Status | Means |"
    yield "|---|---|"
    for status, answer in operation["responses"].items():
        yield f"| {status} | {_cell(answer['description'])} |"
    yield ""


def _paragraphs(text: str | None) -> str:
    """Return help as Markdown; the form feed of Click ends what is shown."""
    return "\n".join(line.strip() for line in (text or "").partition("\f")[0].splitlines())


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")
