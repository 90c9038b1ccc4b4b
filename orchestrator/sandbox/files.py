"""The files API: upload, list, get, delete. Of an upload only the words are kept."""

from __future__ import annotations

from orchestrator.models import Json
from orchestrator.sandbox.checking import Call, Checks, Refused
from orchestrator.sandbox.classifying import words_of
from orchestrator.sandbox.world import File, World

FILES = "/api/v1/beta/files"

PURPOSES = ("user_data", "parse", "extract", "split", "classify", "sheet", "agent_app")

#: The fields that ``order_by`` takes.
_ORDERS = ("name", "id", "created_at")

#: How much of an upload is read for words, in bytes.
READ_BYTES = 65_536


def upload(world: World, call: Call) -> tuple[int, Json]:
    given, checks = call.upload, Checks()
    if given.content is None:
        raise Refused(400, "file field is required for multipart requests.")
    if not given.filename:
        raise Refused(400, "File must have a filename.")
    if not given.content:
        raise Refused(400, "Uploaded file is empty.")
    if given.purpose is None:
        checks.add(("purpose",), "missing", "Field required", None)
    else:
        checks.one_of(given.purpose, ("purpose",), PURPOSES)
    checks.done()
    _refuse(world, given.filename, len(given.content))
    file = File(
        id=f"dfl-{world.new_id('file')}",
        name=given.filename,
        project_id=call.project_id,
        purpose=str(given.purpose),
        external_file_id=given.external_file_id,
        uploaded_at=world.now(),
        words=words_of(given.content[:READ_BYTES].decode(errors="ignore")),
        size=len(given.content),
        locked=given.content.startswith(b"%PDF") and b"/Encrypt" in given.content,
    )
    world.add_file(file)
    return 201, _file(world, file)


def _refuse(world: World, name: str, size: int) -> None:
    """Raises Refused for what the API does not take."""
    options = world.options
    if size > options.max_upload_bytes:
        raise Refused(413, f"File size {size} exceeds the maximum allowed size of {options.max_upload_bytes} bytes.")
    if world.story.matches("unsupported-matching", name):
        raise Refused(400, f"Unsupported file type: {name.rpartition('.')[2]}")
    if options.max_files and sum(map(world.is_there, world.files.values())) >= options.max_files:
        raise Refused(402, f"The total number of files would exceed the maximum allowed {options.max_files} files.")


def list_files(world: World, call: Call) -> tuple[int, Json]:
    size, project_id = call.whole_number("page_size", world.options.page_size, 1, 1000), call.project_id
    name, external, ids = call.one("file_name"), call.one("external_file_id"), call.query.get("file_ids")
    start = call.whole_number("page_token", 0, 0, None)
    order = (call.one("order_by") or "created_at desc").split()
    if order[0] not in _ORDERS or order[1:] not in ([], ["asc"], ["desc"]):
        raise Refused(400, f"Invalid order_by: {call.one('order_by')}; use one of {', '.join(_ORDERS)}")
    if external is not None:
        files = world.files_of(external, project_id)
    else:
        files = [file for file in world.files.values() if world.is_there(file)]
    wanted = None if ids is None else {world.file(file_id) for file_id in ids}
    shown_until = world.now() - world.options.file_lag_s
    found = [
        file
        for file in files
        if file.project_id == project_id
        and file.uploaded_at <= shown_until
        and (name is None or file.name == name)
        and (wanted is None or file in wanted)
    ]
    if order[0] != "created_at":
        found.sort(key=lambda file: file.name if order[0] == "name" else file.id)
    if order[1:] == ["desc"]:
        found.reverse()
    items = [_file(world, file) for file in found[start : start + size]]
    token = str(start + size) if start + size < len(found) else None
    return 200, {"items": items, "next_page_token": token, "total_size": None}


def get(world: World, call: Call) -> tuple[int, Json]:
    return 200, _file(world, _found(world, call))


def delete(world: World, call: Call) -> tuple[int, Json]:
    del world.files[_found(world, call).id]
    return 204, None


def _found(world: World, call: Call) -> File:
    file = world.file(call.id)
    if file is None:
        raise Refused(404, f"File {call.id} not found")
    return file


def _file(world: World, file: File) -> dict[str, Json]:
    lasts = world.options.file_seconds
    return {
        "id": file.id,
        "name": file.name,
        "project_id": file.project_id,
        "purpose": file.purpose,
        "external_file_id": file.external_file_id,
        "file_type": file.name.rpartition(".")[2] or None,
        "last_modified_at": world.wall(file.uploaded_at).isoformat(),
        "expires_at": world.wall(file.uploaded_at + lasts).isoformat() if lasts else None,
        "download_url": None,
    }
