"""A Django project in one file, whose signed-in users call GitHub through it, for WSGI and for ASGI servers.

    GITHUB_TOKEN=... gunicorn --threads 8 examples.django_app:wsgi_application
    GITHUB_TOKEN=... uvicorn examples.django_app:asgi_application
    curl -c jar -d user=alice -d password=wonderland http://127.0.0.1:8000/sign-in
    curl -b jar http://127.0.0.1:8000/connections/github/proxy/rate_limit

In a project of yours, `wsgi.py` and `asgi.py` wrap what they call `application`; MIDDLEWARE is left alone. The
users of this one are in memory.
"""

import os
import secrets
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from io import BytesIO

import django
from django.conf import settings
from django.contrib.auth import authenticate, get_user, get_user_model, login
from django.contrib.sessions.backends import signed_cookies
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.urls import path

from proxy_middleware import (
    Connection,
    Credential,
    EgressPolicy,
    Proxy,
    ProxyRequest,
    StaticCredentials,
    StaticResolver,
)

DATABASE = "file:/users?vfs=memdb"
keeper = sqlite3.connect(DATABASE, uri=True)  # it lasts for as long as somebody has it open
settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATABASE}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[  # without CsrfViewMiddleware, so that curl can sign in; keep yours
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.ScryptPasswordHasher"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32),
    USE_TZ=True,
)
django.setup()


def sign_in(request: HttpRequest) -> HttpResponse:
    """Begins a session."""
    user = authenticate(request, username=request.POST["user"], password=request.POST["password"])
    if user is None:
        return HttpResponse("wrong\n", status=401)
    login(request, user)
    return HttpResponse(f"signed in as {user.get_username()}\n")


def me(request: HttpRequest) -> HttpResponse:
    """A page of the project."""
    return HttpResponse(f"{request.user.get_username() or 'nobody'}\n")


urlpatterns = [path("sign-in", sign_in), path("me/", me)]


def signed_in(call: ProxyRequest) -> str | None:
    """Gives the name of the user whose session the cookie names.

    The proxy is asked before Django is, so the session is opened here. A plain `def` runs in a thread under ASGI, where
    the ORM may be used, and where nobody else closes the connections that Django would close after a request.
    """
    request = WSGIRequest(call.environ) if call.environ else ASGIRequest(call.scope, BytesIO())
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    # A copy in memory: `get_user` may give a session another key, and the proxy sends no cookie that would say so.
    request.session = signed_cookies.SessionStore()
    close_old_connections()
    try:
        request.session.update(import_module(settings.SESSION_ENGINE).SessionStore(key))
        user = get_user(request)
        return user.get_username() if user.is_authenticated else None
    finally:
        close_old_connections()


proxy = Proxy(
    resolver=StaticResolver([Connection("github", os.environ.get("GITHUB_API_URL", "https://api.github.com"))]),
    credentials=StaticCredentials({"github": Credential.bearer(os.environ.get("GITHUB_TOKEN", ""))}),
    authenticate=signed_in,
    egress=EgressPolicy(allow=os.environ.get("GITHUB_NETWORKS", "").split()),
)
wsgi_application = proxy.wsgi(get_wsgi_application())
asgi_application = proxy.asgi(get_asgi_application())


def create_users() -> None:
    """Makes the tables and a user; in a project of yours `manage.py` does."""
    call_command("migrate", verbosity=0)
    get_user_model().objects.create_user("alice", password="wonderland")
    close_old_connections()


with ThreadPoolExecutor(1) as pool:  # uvicorn imports this on its event loop, where the ORM refuses to work
    pool.submit(create_users).result()
