from django.http import HttpResponse
from django.urls import re_path
from django.utils.decorators import method_decorator
from django.views import View

from distlimiter.django import rate_limit

from . import settings

SECRET_KEY = "of tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = __name__
USE_TZ = True
MIDDLEWARE = ["distlimiter.django.RateLimitMiddleware"]
globals().update(settings())


def hello(_):
    return HttpResponse("hello")


async def hello_async(_):
    return HttpResponse("hello")


@method_decorator(rate_limit(entry="own"), name="dispatch")
class Decorated(View):
    def get(self, _):
        return HttpResponse("hello")


urlpatterns = [
    re_path("^decorated$", rate_limit(entry="own")(hello)),
    re_path("^decorated/async$", rate_limit(entry="own")(hello_async)),
    re_path("^decorated/class$", Decorated.as_view()),
    re_path("", hello),
]
