import os
from io import BytesIO

from flask import Flask, send_file

from distlimiter.flask import RateLimit, limit

from . import COST, HALF, LIMITER, settings

extension = RateLimit(every_request="ONLY_DECORATED" not in os.environ)


def create_app():
    app = Flask(__name__, static_folder=None)
    app.config.update(settings())
    extension.init_app(app)

    @app.get("/decorated")
    @limit(entry="own", cost=1)
    def decorated():
        return "hello"

    @app.get("/cost")
    @limit(**COST)
    def cost():
        return HALF * 3

    @app.get("/cost/stream")
    @limit(**COST)
    def stream():
        return (HALF for _ in range(3)), 200

    @app.get("/cost/file")
    @limit(**COST)
    def file():
        return send_file(BytesIO(HALF.encode() * 3), mimetype="text/plain")

    @app.get("/cost/fail")
    @limit(**COST)
    def fail():
        raise RuntimeError("of tests")

    @app.get("/", defaults={"path": ""})
    @app.get("/<path:path>")
    def hello(path):
        return "hello"

    return app


app = create_app()

if LIMITER["on_error"] == "raise" and LIMITER["timeout"] > 1:
    # gunicorn --preload forks after this: its workers must not take over the connection.
    app.extensions["distlimiter"].limiter.peek("before the fork")
