"""What C4's line filters mark in a line, which marks take it out, and their phrases."""

import numpy as np

LONG_WORD, NO_END_TFDS, NO_END, FEW_TFDS, FEW, JAVASCRIPT, POLICY, LOREM, BOILERPLATE, BLANK = (
    1 << place for place in range(10)
)
DROPS = np.array(
    [
        LONG_WORD | NO_END_TFDS | FEW_TFDS | JAVASCRIPT | POLICY | BLANK,
        LONG_WORD | NO_END | FEW | JAVASCRIPT | POLICY | BLANK,
        LONG_WORD | FEW | JAVASCRIPT | POLICY | BLANK,
    ]
)
"""For which marks each of ``columns.VARIANTS`` takes a line out."""

PHRASES = {
    JAVASCRIPT: ("javascript",),
    LOREM: ("lorem ipsum",),
    POLICY: ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"),
    BOILERPLATE: (
        "all rights reserved",
        "click here",
        "read more",
        "sign up for",
        "subscribe to our",
        "share this",
        "skip to content",
        "powered by",
        "무단전재",
        "무단 전재",
        "재배포 금지",
        "재배포금지",
        "바로가기",
        "더보기",
        "로그인",
        "회원가입",
        "개인정보처리방침",
        "이용약관",
        "版权所有",
        "点击这里",
        "阅读更多",
        "無断転載",
        "続きを読む",
        "プライバシーポリシー",
        "สงวนลิขสิทธิ์",
        "อ่านต่อ",
    ),
}
"""Lower case. C4's own, and a list of ours of what stands around texts rather than in them."""
