"""What changes a frozen base by a picture instead of a hint: IP-Adapter and reference-only."""

from zeroconv.adapters.image_encoder import ImageEncoder
from zeroconv.adapters.ip_adapter import IPAdapter
from zeroconv.adapters.reference import References

__all__ = ["IPAdapter", "ImageEncoder", "References"]
