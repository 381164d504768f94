"""What a transport's exception means."""

from __future__ import annotations

from splitiot.errors import TransportBug, TransportError

__all__ = ["failure_of"]


def failure_of(name: str, method: str, error: BaseException, frame: bytes | None = None) -> TransportError:
    """Return the TransportError that stands for another exception of a method of the transport with this name.

    An OSError is what networks and devices raise when they fail; everything else is a mistake in the transport.
    """
    message = f"{name}.{method} raised {error!r}"
    failure = TransportError(message, frame=frame) if isinstance(error, OSError) else TransportBug(message, frame=frame)
    failure.__cause__ = error
    return failure
