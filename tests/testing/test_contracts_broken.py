"""The contracts fail for broken plugins, in the right test and with a message that says what is wrong."""

from pathlib import Path

from tests.testing import broken
from tests.testing.subprocesses import run_pytest

# By class, the tests that must fail, and what one of their messages says.
EXPECTED = {
    "TestNotOverridden": ("test_finds_what_is_known", "has to override the fixture `resolver`"),
    "TestNoSelector": ("test_finds_what_is_known", "has to set `known_selector`"),
    "TestGivesNone": ("test_knows_nothing_of_the_unknown", "gave NoneType where ConnectionNotFound was expected"),
    "TestRaisesKeyError": ("test_knows_nothing_of_the_unknown", "raised KeyError"),
    "TestFindsNothing": ("test_finds_what_is_known", "raised ConnectionNotFound where a Connection was expected"),
    "TestIgnoresTheCaller": ("test_keeps_tenants_apart", "another tenant's connection can be reached"),
    "TestGivesEveryoneEverything": ("test_knows_nothing_of_the_unknown", "gave Connection(id='acme'"),
    "TestFreshIds": ("test_gives_the_same_connection_every_time", "credentials go by id"),
    "TestFreshAttributes": ("test_gives_the_same_connection_every_time", "another attributes each time"),
    "TestChokesOnLength": ("test_takes_every_selector", "raised ValueError"),
    "TestSharesState": ("test_survives_a_crowd", "look-ups share what they must not"),
    "TestRemembersForOthers": ("test_remembers_nothing_for_others", "and then to `other_caller`, too"),
    "TestBlocks": ("test_does_not_hold_up_the_event_loop", "held up the event loop"),
    "TestBlocksInCoroutine": ("test_does_not_hold_up_the_event_loop", "held up the event loop"),
    "TestObtainsText": ("test_obtain_gives_a_credential", "obtain gave str for 'acme', not a Credential"),
    "TestOneForAll": ("test_connections_have_their_own", "got the same credential"),
    "TestUnknownIsKeyError": ("test_unknown_connection", "raise CredentialUnavailable"),
    "TestLifetimeForMoment": ("test_expiry_is_in_unix_seconds", "expires_at is 3600"),
    "TestNothingOnTheRequest": ("test_credential_reaches_the_upstream", "without anything on it"),
    "TestRefreshGivesTheSame": ("test_refresh_gives_another_credential", "gave the credential that was rejected"),
    "TestRefreshRaisesAnything": ("test_refresh_gives_another_credential", "raise RefreshFailed"),
    "TestForgetsTheRefresh": ("test_refresh_is_remembered", "gave the rejected credential again"),
    "TestRefreshesTwice": ("test_outdated_rejection_gives_the_newer_one", "would refresh twice"),
    "TestSpendsTwice": ("test_rejected_requests_are_cured", "rejected together got [200, 401]"),
    "TestJudgesWithText": ("test_is_rejected_knows_a_rejection", "not a bool"),
    "TestRejectsEverything": ("test_is_rejected_knows_a_rejection", "True for a 200"),
    "TestMissesTheRejection": ("test_is_rejected_knows_a_rejection", "False for the API's rejection"),
    "TestShowsInRepr": ("test_shows_no_secret", "a credential is in its repr, as it is"),
    "TestShowsInLog": ("test_shows_no_secret", "a credential is in the log (vault, DEBUG"),
    "TestFailsInCrowds": ("test_survives_a_crowd", "in a crowd of 48 requests some were answered with [500]"),
    "TestProviderBlocks": ("test_does_not_hold_up_the_event_loop", "obtain held up the event loop"),
}


def test_every_broken_plugin_is_caught(tmp_path: Path) -> None:
    """Each is caught by the test that is about what it does wrong, and the message shows no secret."""
    files = {"test_broken.py": "from tests.testing.broken import *\n"}
    outcome = run_pytest(tmp_path, files, *(f"test_broken.py::{name}::{test}" for name, (test, _) in EXPECTED.items()))
    missed = {
        name: dict(outcome.failed[name])
        for name, (test, message) in EXPECTED.items()
        if message not in outcome.failed[name].get(test, "")
    }
    assert missed == {}
    messages = [message for failed in outcome.failed.values() for message in failed.values()]
    assert not [message for message in messages if "secret-token-" in message]


def test_every_broken_plugin_is_known() -> None:
    """The table names all of them."""
    assert {name for name in vars(broken) if name.startswith("Test")} == set(EXPECTED)
