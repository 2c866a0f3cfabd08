"""``winnow webhook`` as typed: a secret is shown once, wrong addresses are refused."""

from tests.cli.command import Winnow

URL = "https://hook.example.org/x"


def test_a_webhook_is_added_with_its_secret_listed_and_removed(fresh: Winnow) -> None:
    fresh.ok("init")
    made = fresh("webhook", "add", URL, "--on", "run.failed", "--on", "run.done")
    assert (made.code, made.out[:6]) == (0, "whsec_"), made.err
    assert f"tells {URL} of run.done, run.failed; its secret:" in made.err
    assert "is told by" not in made.err
    (listed,) = fresh.ok("webhook", "list")
    assert (listed["url"], listed["events"]) == (URL, "run.done, run.failed")
    # The same address for something else is two webhooks on purpose; for the same it hears twice.
    other = fresh("webhook", "add", URL, "--on", "run.cancelled")
    assert "is told by" not in other.err
    again = fresh("webhook", "add", URL)
    assert f"the same address is told by webhook {listed['webhook'][:8]}" in again.err
    assert f"`winnow webhook remove {listed['webhook'][:8]}`" in again.err
    fresh.ok("webhook", "remove", listed["webhook"][:8])
    assert listed["webhook"] not in {one["webhook"] for one in fresh.ok("webhook", "list")}


def test_an_address_on_this_machine_is_refused_and_the_setting_named(fresh: Winnow) -> None:
    fresh.ok("init")
    for url in ("https://127.0.0.1/x", "https://localhost/x", "http://127.0.0.1/x"):
        refused = fresh("webhook", "add", url)
        assert (refused.code, refused.out) == (2, "")
        assert "set WINNOW_WEBHOOK_PRIVATE=true" in refused.err
    assert fresh("webhook", "add", "http://127.0.0.1:1/x", webhook_private=True).code == 0
