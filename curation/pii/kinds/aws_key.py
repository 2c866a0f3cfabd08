"""Access key ids of Amazon Web Services; the secret beside one is a ``secret``."""

from curation.pii import KINDS
from curation.pii.kind import Kind
from curation.pii.secrets import known

KINDS.register("aws_key")(
    Kind(tag="AWS_KEY", pattern=r"(?-u:\b(?:AKIA|ASIA)[A-Z2-7]{16}\b)", check=known(0.95), canonical=str, keep_first=4)
)
