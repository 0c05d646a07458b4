"""PyGithub, python-gitlab and huggingface_hub."""

from pathlib import Path

import pytest

from tests.integration.sdk.apis.code import COMMIT, FILE
from tests.integration.sdk.conftest import SDK
from tests.integration.sdk.stand_in import StandIn

BOTH = pytest.mark.parametrize("door", ["uvicorn", "werkzeug"])


@BOTH
def test_github_follows_pages(sdk: SDK, apis: StandIn) -> None:
    """All pages come, each by the absolute link in the one before."""
    with sdk("github")["client"] as client:
        issues = client.get_repo("octo/new").get_issues()
        assert [issue.title for issue in issues] == ["issue 1", "issue 2", "issue 3"]
    assert [asked.path for asked in apis.asked] == ["/repos/octo/new/issues", *["/repositories/1/issues"] * 2]


def test_github_follows_redirects(sdk: SDK) -> None:
    """A repository that was renamed is found under its new name."""
    with sdk("github")["client"] as client:
        assert client.get_repo("octo/old").description == "moved"


def test_github_objects_by_name(sdk: SDK) -> None:
    """What is named is asked for at the proxy; what a response has made is not, as bodies are never changed."""
    with sdk("github")["client"] as client:
        repository = client.get_repo("octo/new")
        issue = repository.get_issue(1)
        assert issue.create_comment("done").body == "done"
        (listed, *_) = repository.get_issues()
        with pytest.raises(AssertionError):
            listed.create_comment("done")


def test_gitlab(sdk: SDK, apis: StandIn) -> None:
    """Names with slashes are one segment of the path, and all pages come."""
    with sdk("gitlab")["client"] as client:
        project = client.projects.get("group/project")
        assert (project.id, project.files.raw("docs/a.md", ref="main")) == (7, FILE)
        assert [one.id for one in client.projects.list(iterator=True, per_page=1)] == [1, 2, 3]
    assert [asked.path for asked in apis.asked[2:]] == ["/api/v4/projects"] * 3


def test_huggingface(sdk: SDK, apis: StandIn, tmp_path: Path) -> None:
    """A model is found, its file is downloaded, and all pages come."""
    client = sdk("huggingface_hub")["client"]
    assert client.model_info("org/model").sha == COMMIT
    assert [model.id for model in client.list_models()] == ["org/m1", "org/m2", "org/m3"]
    assert Path(client.hf_hub_download("org/model", "config.json", cache_dir=tmp_path)).read_bytes() == FILE
