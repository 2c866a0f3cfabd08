"""The form that a Korean particle takes behind another noun: it depends on whether the noun ends in a consonant."""

_PAIRS = (
    "은 는,이 가,을 를,과 와,과의 와의,과는 와는,과도 와도,으로 로,으로는 로는,으로도 로도,"
    "으로서 로서,으로써 로써,이나 나,이든 든,이든지 든지,이랑 랑,이라 라,이라고 라고,이라는 라는,"
    "이란 란,이라면 라면,이라도 라도,이며 며,이고 고,이지만 지만,이다 다,이었다 였다,이었던 였던,"
    "이에요 예요,이야 야,이네 네,이죠 죠,이지 지,이니 니,이니까 니까,이거나 거나,이여 여"
)
_BY_FORM = {form: tuple(pair.split()) for pair in _PAIRS.split(",") for form in pair.split()}
_FIRST_SYLLABLE, _FINALS, _RIEUL = 0xAC00, 28, 8


def agreeing(particle: str, noun: str) -> str:
    """The particle as it stands behind a noun.

    Parameters
    ----------
    particle : one that is attached to some noun; one that never changes comes back as it is.
    noun : ends in a Hangul syllable.

    Examples
    --------
    >>> agreeing("은", "여자"), agreeing("가", "무슬림"), agreeing("으로", "동성애자들"), agreeing("에게", "여성")
    ('는', '이', '로', '에게')
    """
    forms = _BY_FORM.get(particle)
    if forms is None:
        return particle
    final = (ord(noun[-1]) - _FIRST_SYLLABLE) % _FINALS
    # Behind ㄹ it is 로, as behind a vowel.
    is_open = final == 0 or (final == _RIEUL and forms[1].startswith("로"))
    return forms[1] if is_open else forms[0]
