"""The service behind the page: addresses, and what each of them asks of the desk. ``types.ts`` has the answers.

Work that blocks runs in threads, so that a click is never kept waiting by a picture; maps of where a model looked, and
exports, run one at a time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, unquote

import anyio
from fastapi import FastAPI, Request
from fastapi import Query as Asked
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException

from perikarya.data.corrections import check_reader
from perikarya.errors import ConfigError, DataError, PerikaryaError, UnknownNameError
from perikarya.review import schemas
from perikarya.review.assets import Asset
from perikarya.review.desk import Desk
from perikarya.review.fields import NoSuchTileError
from perikarya.review.security import App, Gate, Lock, Refusal
from perikarya.review.writing_back import Format

T = TypeVar("T")

_FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_MOST_WAITING = 4  # people who hold a key down do not want every map on the way


def make_service(desk: Desk, page: Mapping[str, Asset], lock: Lock) -> App:
    """Put the service together, behind its gate.

    Parameters
    ----------
    desk
        What is reviewed.
    page
        The files of the page, see ``read_page``.
    lock
        The token and the port.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    _say_errors(app)
    _add_table(app, desk)
    _add_pictures(app, desk)
    _add_maps(app, desk)
    _add_corrections(app, desk, _ReaderCookie(lock.port, desk.reader))
    _add_readings(app, desk, _ReaderCookie(lock.port, desk.reader))
    _add_page(app, page)
    return Gate(app, lock)


class _ReaderCookie:
    """Who sits before a browser: a cookie, for two people may look at one service from two of them."""

    def __init__(self, port: int, default: str) -> None:
        self._name, self._default = f"perikarya_reader_{port}", default

    def of(self, request: Request) -> str:
        said = request.cookies.get(self._name)
        return self._default if said is None else check_reader(unquote(said))

    def set(self, answer: Response, reader: str) -> None:
        answer.set_cookie(self._name, quote(reader, safe=""), httponly=True, samesite="strict")


def _say_errors(app: FastAPI) -> None:
    """Answer every refusal with one sentence."""

    async def answer(_request: Request, error: Exception) -> JSONResponse:
        status, sentence = _refusal_of(error)
        return JSONResponse({"error": sentence}, status)

    for kind in (PerikaryaError, Refusal, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _refusal_of(error: Exception) -> tuple[int, str]:
    match error:
        case UnknownNameError() | NoSuchTileError():
            return 404, str(error)
        case ConfigError():
            return 400, str(error)
        case PerikaryaError():
            return 409, str(error)
        case Refusal():
            return error.status, str(error)
        case RequestValidationError():
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])[:200]
            return 400, f"The request does not fit: {place}: {first['msg'][:300]}."
        case HTTPException():
            return error.status_code, f"{error.detail}: there is nothing of this kind at this address."
        case _:
            return 500, "The service failed at this request; the terminal shows why."


def _add_table(app: FastAPI, desk: Desk) -> None:
    @app.post("/api/query")
    def query(question: schemas.Query) -> Response:
        return JSONResponse(desk.query(question))

    @app.post("/api/cells")
    def cells(wish: schemas.Rows) -> Response:
        return JSONResponse(desk.cells(wish.rows))

    @app.get("/api/cells/{row}")
    def cell(row: int) -> Response:
        return JSONResponse(desk.detail(row))

    @app.get("/api/columns/{key:path}")
    def column(key: str) -> Response:
        return JSONResponse(desk.column(key))


def _add_pictures(app: FastAPI, desk: Desk) -> None:
    turn = anyio.CapacityLimiter(1)

    @app.get("/crops/{data_hash}/{row}.png")
    def crop(data_hash: str, row: int, outline: bool = False) -> Response:
        return Response(desk.crop(data_hash, row, outlined=outline), media_type="image/png", headers=_FOR_EVER)

    @app.post("/api/cells/{row}/explain")
    async def explain(row: int, wish: schemas.Explain, request: Request) -> Response:
        if turn.statistics().tasks_waiting >= _MOST_WAITING:
            raise Refusal(409, "Other maps are being made; ask again in a moment.")
        async with turn:
            if await request.is_disconnected():
                return Response(status_code=204)
            drawn = await _aside(lambda: desk.explain(row, model=wish.model, about=wish.about))
        return Response(drawn, media_type="image/png")

    @app.get("/api/fields/{index}")
    def field(index: int) -> Response:
        return JSONResponse(desk.field(index))

    @app.get("/fields/{index}/{level}/{x}_{y}.jpg")
    def tile(index: int, level: int, x: int, y: int) -> Response:
        return Response(desk.tile(index, level, x, y), media_type="image/jpeg")


def _add_maps(app: FastAPI, desk: Desk) -> None:
    @app.get("/api/map")
    def map_state(method: str) -> Response:
        return JSONResponse(desk.map(method))

    @app.post("/api/map")
    def start_map(wish: schemas.MapWish) -> Response:
        return JSONResponse(desk.start_map(wish.method))


def _add_corrections(app: FastAPI, desk: Desk, readers: _ReaderCookie) -> None:
    @app.get("/api/study")
    def study(request: Request) -> Response:
        return JSONResponse(desk.info(readers.of(request)))

    @app.post("/api/reader")
    def rename(wish: schemas.ReaderName) -> Response:
        try:
            reader = check_reader(wish.reader)
        except DataError as error:
            raise Refusal(400, str(error)) from None
        answer = JSONResponse({"reader": reader})
        readers.set(answer, reader)
        return answer

    @app.post("/api/corrections")
    def correct(clicks: schemas.Corrections, request: Request) -> Response:
        return JSONResponse(desk.correct(clicks.items, by=readers.of(request)))

    @app.get("/api/changes")
    def changes(since: Annotated[int, Asked(ge=0)]) -> Response:
        return JSONResponse(desk.changes(since))

    exporting = anyio.CapacityLimiter(1)

    @app.get("/api/export")
    async def export(format: Format) -> Response:  # noqa: A002 - the word of the address
        if exporting.available_tokens == 0:
            raise Refusal(409, "An export is being made; wait for it.")
        async with exporting:
            return await _aside(lambda: _zipped(desk, format))


async def _aside(work: Callable[[], T]) -> T:
    """Run long work in a thread that nobody waits for when the service ends."""
    try:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
    except anyio.get_cancelled_exc_class():
        raise Refusal(503, "The service is ending.") from None


def _zipped(desk: Desk, format_: Format) -> Response:
    scratch = Path(tempfile.mkdtemp(prefix="perikarya-export-"))
    try:
        name = desk.export(scratch / "out", format_)
        archive = shutil.make_archive(str(scratch / "export"), "zip", scratch / "out")
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    clean = BackgroundTask(shutil.rmtree, scratch, ignore_errors=True)
    return FileResponse(archive, media_type="application/zip", filename=f"{name}.zip", background=clean)


def _add_readings(app: FastAPI, desk: Desk, readers: _ReaderCookie) -> None:
    @app.get("/api/readings")
    def rounds(request: Request) -> Response:
        return JSONResponse(desk.rounds(readers.of(request)))

    @app.post("/api/readings")
    def start(wish: schemas.RoundWish, request: Request) -> Response:
        return JSONResponse(desk.start_round(wish, reader=readers.of(request)))

    @app.post("/api/readings/{name:path}")
    def read(name: str, reading: schemas.Reading, request: Request) -> Response:
        return JSONResponse(desk.read(name, reading, reader=readers.of(request)))

    @app.get("/api/agreement")
    def agreement() -> Response:
        return JSONResponse(desk.agreement())


def _add_page(app: FastAPI, page: Mapping[str, Asset]) -> None:
    @app.get("/{name:path}")
    def asset(name: str) -> Response:
        found = page.get(name or "index.html")
        if found is None:
            raise Refusal(404, "There is nothing at this address.")
        headers: dict[str, Any] = _FOR_EVER if found.for_ever else {}
        return Response(found.content, media_type=found.media_type, headers=headers)
