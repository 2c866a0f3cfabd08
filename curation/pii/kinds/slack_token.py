"""Tokens and webhooks of Slack."""

from curation.pii import KINDS
from curation.pii.kind import Kind
from curation.pii.secrets import known

KINDS.register("slack_token")(
    Kind(
        tag="SLACK_TOKEN",
        pattern=(
            r"(?-u:\bxox[abeoprs]-(?:[0-9]{1,2}-)?[A-Za-z0-9\-]{10,250}[A-Za-z0-9]|\bxapp-[0-9]-[A-Za-z0-9\-]{20,250}[A-Za-z0-9]"
            r"|hooks\.slack\.com/services/T[A-Z0-9]{7,12}/B[A-Z0-9]{7,12}/[A-Za-z0-9]{20,28})"
        ),
        check=known(0.95),
        canonical=str,
        keep_first=4,
    )
)
