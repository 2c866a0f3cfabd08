"""What a command says while the broker is away: that the work is recorded, and what to do."""

from pathlib import Path

from tests.cli import corpus
from tests.cli.command import Winnow
from tests.servers import RedisServer


def test_work_asked_for_while_the_broker_is_away_is_recorded_and_done_once_it_is_back(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path)
    winnow = Winnow(tmp_path / "home", broker_url=redis.url, num_workers=1)
    winnow.ok("init")
    path = corpus.write_jsonl(tmp_path / "a.jsonl", corpus.records()[:5])
    command = ["ingest", str(path), "--dataset", "tickets", "--text", "body"]
    refused = winnow(*command)
    assert (refused.code, refused.out) == (1, "")
    assert f"winnow: the broker at {redis.url} does not answer" in refused.err
    assert "is recorded, and starts by itself once the broker answers and `winnow up` runs" in refused.err
    redis.start()
    try:
        assert winnow.ok(*command)["records"] == 5
        redis.stop()
        told = winnow.ok("clean", "tickets", "--recipe", "short-text", "--detach")
        assert "does not answer" in told["broker_away"]
        shown = winnow("clean", "tickets", "--recipe", "short-text", "--detach")
        assert (shown.code, shown.out.strip()) == (0, told["run"])
        assert "is recorded" in shown.err
    finally:
        redis.stop()


def test_damaged_message_file_is_told_in_one_line_with_what_to_do(fresh: Winnow, tmp_path: Path) -> None:
    fresh.ok("init")
    path = corpus.write_jsonl(tmp_path / "a.jsonl", corpus.records()[:5])
    file = fresh.home / "broker.db"
    file.write_text("this is a letter to my aunt, not a database of any kind " * 40)
    command = ["ingest", str(path), "--dataset", "tickets", "--text", "body"]
    refused = fresh(*command)
    assert refused.code == 1
    assert f"the broker at {file} does not answer (file is not a database); stop `winnow up` and delete" in refused.err
    file.unlink()
    assert fresh.ok(*command, num_workers=1)["records"] == 5
