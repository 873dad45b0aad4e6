"""The tools as a server of the Model Context Protocol: lists them, calls them, words what went wrong.

The protocol is the official SDK's; its low-level server takes our own schemas, which come from the types that
the API answers with. Tools are marked read-only, which is a hint for clients: what keeps an assistant from
deciding is its token, and that there is no code here that asks for anything but GET.
"""

from __future__ import annotations

from typing import Any, Final

import mcp_types as types
import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from escalation.assistant.reader import Reader, ReadError
from escalation.assistant.tools import NOTICE, TOOLS, Tool
from escalation.inert import guarded

_INSTRUCTIONS: Final = (
    "Reads the queue of a fleet's monitor: incidents, recommendations, evidence, hosts, the audit log. "
    + NOTICE
    + " To have something decided, name the entry's id to a person."
)
_READ_ONLY: Final = types.ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)


async def serve(reader: Reader, *, version: str) -> None:
    """Answer on standard input and output until the other end closes them."""
    server = build(reader, version=version)
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def build(reader: Reader, *, version: str) -> Server[Any]:
    """Return the server over `reader`."""
    known = {tool.name: tool for tool in TOOLS}

    async def listed(
        _context: ServerRequestContext[Any], _asked: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_described(tool) for tool in TOOLS])

    async def called(
        _context: ServerRequestContext[Any], asked: types.CallToolRequestParams
    ) -> types.CallToolResult:
        tool = known.get(asked.name)
        if tool is None:
            return _failed(f"there is no tool {guarded(asked.name[:100])}")
        try:
            answer = await tool.call(reader, asked.arguments or {})
        except msgspec.ValidationError as error:
            return _failed(f"{tool.name}: {guarded(str(error))}")
        except ReadError as error:
            return _failed(str(error))
        text = msgspec.json.encode(answer).decode()
        return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=answer)

    return Server(
        "host-nanobot",
        version=version,
        title="Host Nanobot",
        instructions=_INSTRUCTIONS,
        on_list_tools=listed,
        on_call_tool=called,
    )


def _described(tool: Tool) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.says,
        input_schema=tool.input_schema(),
        output_schema=tool.output_schema(),
        annotations=_READ_ONLY,
    )


def _failed(sentence: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=sentence)], is_error=True)
