import os

from flask import Flask

from distlimiter.flask import RateLimit, limit

from . import LIMITER, settings

extension = RateLimit(every_request="ONLY_DECORATED" not in os.environ)


def create_app():
    app = Flask(__name__, static_folder=None)
    app.config.update(settings())
    extension.init_app(app)

    @app.get("/decorated")
    @limit(entry="own", cost=1)
    def decorated():
        return "hello"

    @app.get("/", defaults={"path": ""})
    @app.get("/<path:path>")
    def hello(path):
        return "hello"

    return app


app = create_app()

if LIMITER["on_error"] == "raise" and LIMITER["timeout"] > 1:
    # gunicorn --preload forks after this: its workers must not take over the connection.
    app.extensions["distlimiter"].limiter.peek("before the fork")
