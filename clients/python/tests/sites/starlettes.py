from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from distlimiter import AsyncRateLimiter
from distlimiter.asgi import RateLimitMiddleware

from . import LIMITER, OPTIONS, who


async def hello(_):
    return PlainTextResponse("hello")


app = Starlette(routes=[Route("/{path:path}", hello, methods=["GET", "OPTIONS"])])
app.add_middleware(RateLimitMiddleware, limiter=AsyncRateLimiter(**LIMITER, key_extractor=who), **OPTIONS)
