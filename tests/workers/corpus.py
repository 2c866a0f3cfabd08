"""A small real-looking corpus: several scripts, labels, planted duplicates, made from a seed."""

import json
import random
from pathlib import Path

WORDS = [
    "the",
    "invoice",
    "printer",
    "network",
    "password",
    "account",
    "meeting",
    "update",
    "server",
    "order",
    "refund",
    "shipping",
    "delay",
    "customer",
    "screen",
    "battery",
    "keyboard",
    "update",
    "license",
    "contract",
    "renewal",
    "backup",
    "email",
    "calendar",
    "login",
    "error",
    "message",
    "window",
]
KOREAN = [
    "주문",
    "환불",
    "배송",
    "지연",
    "비밀번호",
    "계정",
    "서버",
    "오류",
    "화면",
    "배터리",
    "회의",
    "일정",
    "갱신",
    "계약",
    "고객",
    "문의",
    "네트워크",
    "프린터",
    "메일",
    "로그인",
]
LABELS = ("hardware", "software", "환불")
RECIPE = """
name: small
rules:
  char_count: {minimum: 10}
  word_count: {minimum: 3, maximum: 1000}
near: {threshold: 0.7, bands: 20, rows: 5}
encoder: hashing
"""


def sentences(count: int, seed: int) -> list[dict[str, str]]:
    """Records with a body and a queue: mostly distinct, every tenth an exact and every ninth a near duplicate."""
    rng = random.Random(seed)
    made: list[dict[str, str]] = []
    for number in range(count):
        words = rng.choice((WORDS, WORDS, KOREAN))
        body = " ".join(rng.choices(words, k=rng.randint(12, 25))) + rng.choice((".", " 🎉", "!"))
        if made and number % 10 == 0:
            body = rng.choice(made)["body"].upper() + "  "
        elif made and number % 9 == 0:
            body = rng.choice(made)["body"] + " thanks"
        elif number % 17 == 0:
            body = "too short"[: rng.randint(1, 9)]
        made.append({"body": body, "queue": rng.choice(LABELS)})
    return made


def write_files(folder: Path, num_files: int, count: int) -> list[str]:
    """JSONL files; a few records stand in two of them word for word."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    shared = sentences(5, seed=99)
    for number in range(num_files):
        path = folder / f"part-{number}.jsonl"
        rows = sentences(count, seed=number) + shared
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        paths.append(str(path))
    return paths
