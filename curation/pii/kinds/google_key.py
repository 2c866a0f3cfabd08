"""API keys, client secrets and access tokens of Google."""

from curation.pii import KINDS
from curation.pii.kind import Kind
from curation.pii.secrets import known

KINDS.register("google_key")(
    Kind(
        tag="GOOGLE_KEY",
        pattern=r"(?-u:\bAIza[A-Za-z0-9_\-]{35}|\bGOCSPX-[A-Za-z0-9_\-]{28}|\bya29\.[A-Za-z0-9_\-]{30,500})",
        check=known(0.95),
        canonical=str,
        keep_first=4,
    )
)
