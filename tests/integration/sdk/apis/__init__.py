"""What the APIs answer: as much of each as an SDK needs."""

from tests.integration.sdk.apis.code import github, gitlab, huggingface
from tests.integration.sdk.apis.data import dynamodb, elasticsearch, s3
from tests.integration.sdk.apis.services import openai, slack, stripe, stripe_files
from tests.integration.sdk.stand_in import API

APIS: dict[str, API] = {
    "dynamodb": dynamodb,
    "elasticsearch": elasticsearch,
    "files.stripe.com": stripe_files,
    "github": github,
    "gitlab": gitlab,
    "huggingface": huggingface,
    "openai": openai,
    "s3": s3,
    "slack": slack,
    "stripe": stripe,
}
