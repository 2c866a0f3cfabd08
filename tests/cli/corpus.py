"""Short labelled texts in English and Korean, with emoji and planted trouble, made from a seed."""

import json
import random
from pathlib import Path

WORDS = {
    "delivery": "parcel courier late tracking doorstep depot shipped van warehouse missing box label weekend address "
    "neighbour signature delay customs 택배 배송 기사 송장 지연 도착 창고 주소 포장 분실 문앞 경비실 📦 🚚",
    "billing": "invoice charged twice refund card bank receipt tax amount payment declined subscription price coupon "
    "currency statement fee 결제 환불 카드 영수증 요금 청구서 은행 할인 금액 이체 쿠폰 세금 💳 💰",
    "account": "password login locked reset username email verify code expired profile security phone settings sign "
    "session forgotten blocked 비밀번호 계정 로그인 인증 코드 이메일 잠금 초기화 보안 설정 만료 아이디 🔑 🔒",
    "device": "screen battery charger broken keyboard noise overheats firmware button cable speaker camera flickers "
    "dead pixel repair warranty 화면 배터리 충전기 고장 소음 발열 버튼 스피커 카메라 수리 보증 전원 🔋 📱",
}
COMMON = (
    "the my is not since yesterday please help with again still after before 오늘 어제 아직 다시 문의 합니다 왜 빨리"
)

NUM_PLAIN, NUM_SHORT, NUM_EXACT, NUM_NEAR = 370, 8, 12, 10
NUM_RECORDS = NUM_PLAIN + NUM_SHORT + NUM_EXACT + NUM_NEAR
MARKUP = "<script>alert('x')</script> & <b onmouseover=alert(1)>bold</b> tickets stay text in every page"
ESCAPES = "terminal \x1b[31mred\x1b[0m and \x9b2J and \x07 bell and \x7f delete stay away from the screen"

RECIPE = """
name: tiny
rules:
  char_count: {minimum: 8, maximum: 10000}
  word_count: {minimum: 3, maximum: 1000}
near: {threshold: 0.7, bands: 20, rows: 5}
encoder: hashing
"""

TRAIN_RECIPE = """
name: quick
labels: given
max_tokens: 16
arms:
  - name: small
    backbone_options: {vocab_size: 400, dim: 16, num_layers: 1, num_heads: 2}
    steps: 6
    batch_size: 16
"""

SCHEMA = "question: 무엇에 관한 글인가요?\nlabels: [delivery, billing, account, device]\n"


def records(seed: int = 7) -> list[dict[str, str]]:
    """``body`` and ``queue`` of every record: first the plain ones, then the short, the exact and the near duplicates.

    A plain text has so many words drawn at random that no two are near duplicates. The last two plain texts hold markup
    and terminal escapes; the one with markup has the biggest cluster: two exact duplicates.
    """
    rng = random.Random(seed)
    labels = sorted(WORDS)
    made = []
    for number in range(NUM_PLAIN):
        label = labels[number % len(labels)]
        words = rng.sample(WORDS[label].split(), 12) + rng.sample(COMMON.split(), 4)
        rng.shuffle(words)
        made.append({"body": " ".join(words), "queue": label})
    made[-2]["body"], made[-1]["body"] = MARKUP, ESCAPES
    originals = [made[-2]] * 2 + rng.sample(made[:-2], NUM_EXACT + NUM_NEAR - 2)
    made += [{"body": f"배송조회부탁드려요 {number}번", "queue": "device"} for number in range(NUM_SHORT)]
    made += [{"body": f"  {one['body'].upper()}  ", "queue": one["queue"]} for one in originals[:NUM_EXACT]]
    made += [{"body": f"{one['body']} ok?", "queue": one["queue"]} for one in originals[NUM_EXACT:]]
    return made


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
