"""What the user reads holds no password, token or signature of an address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroconv.errors import UserError, without_secrets


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "there is no https://me:s3cret@host/a.tar; check",
            "there is no https://***@host/a.tar; check",
        ),
        ("404, url='http://me:s3cret@h/d?sig=s3cret'", "404, url='http://***@h/d?sig=***'"),
        ("http://me:s3/cret@h/x", "http://***@h/x"),
        (
            "s3://k:s3cret@b/x?split=test&X-Amz-Signature=s3cret",
            "s3://***@b/x?split=test&X-Amz-Signature=***",
        ),
        ("https://h/a#access_token=s3cret", "https://h/a#access_token=***"),
        ("https://h/a?s3cret", "https://h/a?***"),
        ("https://h:8080/@me/a.tar?limit=3 + b", "https://h:8080/@me/a.tar?limit=3 + b"),
        ("me@host and a=b?c=d", "me@host and a=b?c=d"),
    ],
)
def test_an_error_hides_secrets_of_addresses(message: str, shown: str) -> None:
    assert without_secrets(message) == shown == str(UserError(message))
    assert without_secrets(shown) == shown


WORD = st.text("abcXYZ019-_.%", min_size=1, max_size=12)


@given(
    WORD,
    WORD,
    WORD,
    st.sampled_from(["https", "s3", "az", "hf"]),
    st.sampled_from(["sig", "token", "X-Amz-Key"]),
)
def test_any_password_and_token_is_hidden(
    host: str, user: str, rest: str, scheme: str, name: str
) -> None:
    message = str(UserError(f"x {scheme}://{user}:s3:cret@{host}/{rest}?{name}=s3:cret&limit=2 y"))
    assert (
        "s3:cret" not in message
        and message.startswith("x ")
        and message.endswith("&limit=2 y")
        and host in message
    )
