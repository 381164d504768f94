"""The device: its blocking face."""

from splitiot.device._device import Device

__all__ = ["Device"]
