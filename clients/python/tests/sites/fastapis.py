from fastapi import BackgroundTasks, FastAPI, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse

from distlimiter import AsyncRateLimiter
from distlimiter.asgi import RateLimitMiddleware

from . import COST, HALF, LIMITER, OPTIONS, who

app = FastAPI()
app.add_middleware(RateLimitMiddleware, limiter=AsyncRateLimiter(**LIMITER), key_extractor=who, **OPTIONS)


app.add_middleware(RateLimitMiddleware, limiter=AsyncRateLimiter(**LIMITER), **COST)


@app.api_route("/cost", methods=["GET", "HEAD"])
async def cost():
    return PlainTextResponse(HALF * 3)


@app.get("/cost/stream")
async def stream(background: BackgroundTasks):
    async def parts():
        for _ in range(3):
            yield HALF

    return StreamingResponse(parts(), background=background)


@app.get("/cost/fail")
async def fail():
    raise RuntimeError("of tests")


@app.api_route("/{path:path}", methods=["GET", "OPTIONS"])
async def hello(path: str):
    return {"path": path}


@app.websocket("/socket")
async def socket(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()


@app.websocket("/cost/socket")
async def costly_socket(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text(HALF)
    await websocket.send_bytes(HALF.encode())
    await websocket.close()
