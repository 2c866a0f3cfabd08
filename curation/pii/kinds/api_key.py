"""Keys of other services, told by the prefix that each gives them."""

from curation.pii import KINDS
from curation.pii.kind import Kind
from curation.pii.secrets import known

_FORMS = (
    r"[rs]k_(?:live|test)_[A-Za-z0-9]{20,250}",  # Stripe
    r"sk-ant-[A-Za-z0-9_\-]{32,200}",  # Anthropic
    r"sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_\-]{16,120}T3BlbkFJ[A-Za-z0-9_\-]{16,120}",  # OpenAI
    r"glpat-[A-Za-z0-9_\-]{20,64}",  # GitLab
    r"npm_[A-Za-z0-9]{36}",  # npm
    r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_\-]{50,500}",  # PyPI
    r"hf_[A-Za-z]{34}",  # Hugging Face
    r"SG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}",  # SendGrid
    r"dop_v1_[a-f0-9]{64}",  # DigitalOcean
    r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # Shopify
    r"dckr_pat_[A-Za-z0-9_\-]{27}",  # Docker
)

KINDS.register("api_key")(
    Kind(
        tag="API_KEY",
        pattern=rf"(?-u:\b(?:{'|'.join(_FORMS)}))",
        check=known(0.95),
        canonical=str,
        keep_first=2,
    )
)
