"""GitHub, GitLab and Hugging Face: what pages by `Link` and moves by redirects."""

from tests.integration.sdk.stand_in import Asked, answer

FILE = b"weights" * 1000
COMMIT = "a" * 40


def github(asked: Asked) -> bytes:
    """A repository that was renamed, with three issues, one a page."""
    match asked.path:
        case "/repos/octo/old":
            return answer({"message": "Moved Permanently"}, 301, (b"Location", f"{asked.url}/repos/octo/new".encode()))
        case "/repos/octo/new":
            return answer({"id": 1, "description": "moved", "url": f"{asked.url}/repos/octo/new"})
        case "/repos/octo/new/issues":
            return _page(asked, "/repositories/1/issues")
        case "/repos/octo/new/issues/1/comments":
            return answer({"id": 9, "body": asked.json["body"]}, 201)
        case "/repositories/1/issues":
            return _page(asked, asked.path)
    return answer({"message": "Not Found"}, 404)


def _page(asked: Asked, path: str) -> bytes:
    number = int(asked.query.get("page", "1"))
    item = {
        "id": number,
        "number": number,
        "name": f"n{number}",
        "title": f"issue {number}",
        "url": f"{asked.url}/{number}",
    }
    per = "".join(f"{name}={asked.query[name]}&" for name in ("per_page", "limit") if name in asked.query)
    links = f'<{asked.url}{path}?{per}page={number + 1}>; rel="next", <{asked.url}{path}?{per}page=3>; rel="last"'
    return answer([item], 200, *([(b"Link", links.encode())] if number < 3 else []))


def gitlab(asked: Asked) -> bytes:
    """A project, whose name has a slash that is none in the path; and three of them, one a page."""
    match asked.path:
        case "/api/v4/projects/group%2Fproject":
            return answer({"id": 7, "path_with_namespace": "group/project"})
        case "/api/v4/projects":
            return _page(asked, asked.path)
        case "/api/v4/projects/7/repository/files/docs%2Fa.md/raw":
            return answer(FILE, kind=b"text/plain")
    return answer({"message": "404 Not Found"}, 404)


def huggingface(asked: Asked) -> bytes:
    """A model and its one file; and three models, one a page."""
    match asked.path:
        case "/api/models/org/model":
            return answer({"id": "org/model", "sha": COMMIT, "siblings": [{"rfilename": "config.json"}]})
        case "/api/models":
            number = int(asked.query.get("cursor", "1"))
            links = f'<{asked.url}/api/models?cursor={number + 1}>; rel="next"'
            return answer([{"id": f"org/m{number}"}], 200, *([(b"Link", links.encode())] if number < 3 else []))
        case "/org/model/resolve/main/config.json":
            return _file(asked)
    return answer({"error": "Repository not found"}, 404, (b"X-Error-Code", b"RepoNotFound"))


def _file(asked: Asked) -> bytes:
    whole = answer(
        FILE, 200, (b"ETag", b'"abc"'), (b"X-Repo-Commit", COMMIT.encode()), kind=b"application/octet-stream"
    )
    return whole.removesuffix(FILE) if asked.method == "HEAD" else whole
