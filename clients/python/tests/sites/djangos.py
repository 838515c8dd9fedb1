from io import BytesIO

from django.http import FileResponse, Http404, HttpResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import re_path
from django.utils.decorators import method_decorator
from django.views import View

from distlimiter.django import rate_limit

from . import COST, HALF, settings

SECRET_KEY = "of tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
USE_TZ = True
MIDDLEWARE = ["distlimiter.django.RateLimitMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
globals().update(settings())


def hello(_):
    return HttpResponse("hello")


async def hello_async(_):
    return HttpResponse("hello")


@method_decorator(rate_limit(entry="own"), name="dispatch")
class Decorated(View):
    def get(self, _):
        return HttpResponse("hello")


def cost(_):
    return HttpResponse(HALF * 3)


async def cost_async(_):
    return HttpResponse(HALF * 3)


def stream(_):
    return StreamingHttpResponse(HALF for _ in range(3))


async def stream_async(_):
    async def parts():
        for _ in range(3):
            yield HALF

    return StreamingHttpResponse(parts())


def file(_):
    return FileResponse(BytesIO(HALF.encode() * 3))


def template(request):
    return TemplateResponse(request, engines["django"].from_string("{{ half }}" * 3), {"half": HALF})


def fail(_):
    raise RuntimeError("of tests")


async def missing(_):
    raise Http404


@method_decorator(rate_limit(**COST), name="dispatch")
class CostAsync(View):
    async def get(self, _):
        return HttpResponse(HALF * 3)


urlpatterns = [
    re_path("^cost/class/async$", CostAsync.as_view()),
    *(
        re_path(f"^{path}$", rate_limit(**COST)(view))
        for path, view in {
            "cost": cost,
            "cost/async": cost_async,
            "cost/stream": stream,
            "cost/stream/async": stream_async,
            "cost/file": file,
            "cost/template": template,
            "cost/fail": fail,
            "cost/missing": missing,
        }.items()
    ),
    re_path("^decorated$", rate_limit(entry="own")(hello)),
    re_path("^decorated/async$", rate_limit(entry="own")(hello_async)),
    re_path("^decorated/class$", Decorated.as_view()),
    re_path("", hello),
]
