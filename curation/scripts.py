"""Character classes of writing systems, for Rust regular expressions."""

CJK = r"\p{Han}\p{Hiragana}\p{Katakana}ー"
"""Scripts without spaces in which two characters make a word, roughly."""

SOUTHEAST_ASIAN = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts without spaces in which four characters (marks included) make a word, roughly."""

UNSPACED = CJK + SOUTHEAST_ASIAN

EAST_ASIAN_PUNCTUATION = (
    r"\x{3000}-\x{3004}\x{3008}-\x{3020}\x{FF01}-\x{FF0F}"
    r"\x{FF1A}-\x{FF20}\x{FF3B}-\x{FF40}\x{FF5B}-\x{FF65}"
)
