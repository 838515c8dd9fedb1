from fastapi import FastAPI, WebSocket

from distlimiter import AsyncRateLimiter
from distlimiter.asgi import RateLimitMiddleware

from . import LIMITER, OPTIONS, who

app = FastAPI()
app.add_middleware(RateLimitMiddleware, limiter=AsyncRateLimiter(**LIMITER), key_extractor=who, **OPTIONS)


@app.api_route("/{path:path}", methods=["GET", "OPTIONS"])
async def hello(path: str):
    return {"path": path}


@app.websocket("/socket")
async def socket(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text("hello")
    await websocket.close()
