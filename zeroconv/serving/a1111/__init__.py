"""A1111's HTTP interface, for clients that were written for it: `/sdapi/v1/…` and `/controlnet/…`.

What a request asks for becomes a `Generation` of ours; the answers have A1111's fields.
"""

from __future__ import annotations

from zeroconv.serving.a1111 import controlnet, generating, listing

routers = (generating.router, listing.router, controlnet.router)
