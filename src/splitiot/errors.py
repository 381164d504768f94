"""Everything that splitiot raises.

SplitiotError
├── ModelError                    a model file can't be used as asked
│   ├── MalformedModel            the file is broken: it would crash or mislead an interpreter
│   ├── UnsupportedModel          the file is sound, but uses what splitiot does not know
│   └── NotCuttable               this model can't be cut here: operator, tensor and reason
├── CutError                      no such cut, part or step (also a ValueError)
├── ProfileError                  a profile is missing, broken, or of another pipeline
├── TraceError                    a trace is broken, of another version, or can't be replayed
├── Infeasible                    no placement meets the constraints
├── TransportError                a frame could not be carried
│   ├── TransportTimeout          not in the time given (also a TimeoutError)
│   ├── AuthenticationError       the other side refused the credential
│   ├── FrameTooLarge             this frame is larger than the other side, or the way there, accepts
│   └── TransportBug              a transport raised or returned what it must not
├── ProtocolError                 bytes that break the protocol
│   ├── LocalProtocolError        this side was used wrongly
│   │   └── PayloadTooLarge       a payload is more than one frame carries
│   └── RemoteProtocolError       the other side sent what it must not
├── StepError                     a step raised: its own exception is the cause
│   └── TaskKilled                an isolated task hung, died or took too much memory
├── RemoteError                   the edge could not compute: code and message of the other side
├── Dropped                       a task dropped the frame: it was filtered, and has no result
├── DeadlineExceeded              no result in time (also a TimeoutError)
├── EdgeUnavailable               the edge can't be reached and the device can't finish alone
├── Overloaded                    a bounded table is full; come back after `retry_after_s`
│   └── StateLost                 what a stateful pipeline remembered of one owner is gone: reset()
└── MissingDependencyError        an extra is not installed (also an ImportError)
"""

from __future__ import annotations

from typing import Literal

from splitiot._escape import escaped

__all__ = [
    "AuthenticationError",
    "CutError",
    "DeadlineExceeded",
    "Dropped",
    "EdgeUnavailable",
    "FrameTooLarge",
    "Infeasible",
    "LocalProtocolError",
    "MalformedModel",
    "MissingDependencyError",
    "ModelError",
    "NotCuttable",
    "Overloaded",
    "PayloadTooLarge",
    "ProfileError",
    "ProtocolError",
    "RemoteError",
    "RemoteProtocolError",
    "SplitiotError",
    "StateLost",
    "StepError",
    "TaskKilled",
    "TraceError",
    "TransportBug",
    "TransportError",
    "TransportTimeout",
    "UnsupportedModel",
]


def with_notes(message: str, error: BaseException) -> str:
    """Add an exception's notes, such as the task that raised it, to a message about it."""
    return "; ".join([message, *getattr(error, "__notes__", ())])


class SplitiotError(Exception):
    """The root of all errors that splitiot raises on purpose.

    What it says may have come from an edge or a file: control characters in it are escaped where it is shown. `args`
    has them as they were.
    """

    def __str__(self) -> str:
        return escaped(super().__str__())


class ModelError(SplitiotError):
    """A model can't be used as asked."""


class MalformedModel(ModelError):
    """The file is broken: running it could crash an interpreter or give silent garbage."""


class UnsupportedModel(ModelError):
    """The file may be sound, but it uses something that splitiot does not know."""


class NotCuttable(ModelError):
    """The model can't be cut at this place; the message names the operator, the tensor and the reason."""


class CutError(SplitiotError, ValueError):
    """There is no such cut, part or step in this pipeline."""


class ProfileError(SplitiotError):
    """A profile is missing, broken, or belongs to another pipeline."""


class TraceError(SplitiotError):
    """A trace is broken, of another version, or can't be replayed."""


class Infeasible(SplitiotError):
    """No placement meets the constraints."""


class TransportError(SplitiotError):
    """A frame could not be carried.

    Parameters
    ----------
    message : str
    frame : bytes, optional
        The outgoing frame that failed, so that a session can tell which request it was.
    heals : bool
        Whether it may end by itself, as when a network comes back. False: somebody must change something.
    remedy : str
        What would mend it, in words.
    """

    def __init__(self, message: str, *, frame: bytes | None = None, heals: bool = True, remedy: str = "") -> None:
        super().__init__(message)
        self.frame = frame
        self.heals, self.remedy = heals, remedy


class TransportTimeout(TransportError, TimeoutError):
    """A frame was not carried in the time given."""


class AuthenticationError(TransportError):
    """The other side refused the credential."""

    def __init__(
        self,
        message: str,
        *,
        frame: bytes | None = None,
        heals: bool = False,
        remedy: str = "give the device a token that the edge knows",
    ) -> None:
        super().__init__(message, frame=frame, heals=heals, remedy=remedy)


class FrameTooLarge(TransportError):
    """A frame is larger than the other side, or something on the way, accepts. Smaller ones pass.

    Parameters
    ----------
    message : str
    frame : bytes, optional
    limit : int, optional
        The most bytes that are accepted, where that is known.
    """

    def __init__(self, message: str, *, frame: bytes | None = None, limit: int | None = None) -> None:
        remedy = "let the edge, and what stands before it, accept larger frames (nginx: client_max_body_size)"
        super().__init__(message, frame=frame, heals=False, remedy=remedy)
        self.limit = limit


class TransportBug(TransportError):
    """A transport raised something else than a TransportError, or returned no bytes: its exception is the `__cause__`.

    Parameters
    ----------
    message : str
    frame : bytes, optional
    """

    def __init__(self, message: str, *, frame: bytes | None = None) -> None:
        super().__init__(message, frame=frame, heals=False, remedy="mend the transport: see how to write one")


class ProtocolError(SplitiotError):
    """Bytes that break the protocol."""


class LocalProtocolError(ProtocolError):
    """A mistake in the calling code: this side was used wrongly."""


class PayloadTooLarge(LocalProtocolError):
    """A payload holds more than one frame can carry. A device that can finish alone does so."""


class RemoteProtocolError(ProtocolError):
    """The other side sent something that it must not."""


class StepError(SplitiotError):
    """A step raised on this side; its own exception is the `__cause__`."""


class TaskKilled(StepError):
    """An isolated task came to no end of its own: its process is gone, and the next frame has a new one.

    Parameters
    ----------
    message : str
    reason : {"hung", "died", "memory"}
        It took longer than it may and was stopped; its process died (a crash, an exit); it wanted more memory than
        it may have.
    """

    def __init__(self, message: str, *, reason: Literal["hung", "died", "memory"] = "died") -> None:
        super().__init__(message)
        self.reason = reason


class RemoteError(SplitiotError):
    """The edge answered that it could not compute.

    Parameters
    ----------
    message : str
        The edge's own words.
    code : str
        One of the codes of `splitiot.wire.ErrorCode`.
    """

    def __init__(self, message: str, *, code: str = "failed") -> None:
        super().__init__(message)
        self.code = code


class Dropped(SplitiotError):
    """A task dropped the frame, as tasks may: it has no result, and nothing went wrong."""


class DeadlineExceeded(SplitiotError, TimeoutError):
    """No result in time."""


class EdgeUnavailable(SplitiotError):
    """The edge can't be reached, and the device does not have the remaining part."""


class Overloaded(SplitiotError):
    """A bounded table is full.

    Parameters
    ----------
    message : str
    retry_after_s : float
        When it makes sense to come back, in seconds.
    """

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StateLost(Overloaded):
    """What a stateful pipeline remembered of one owner is gone: evicted, or in doubt. Start again with `reset`."""


class MissingDependencyError(SplitiotError, ImportError):
    """Something was asked for that needs an extra.

    Parameters
    ----------
    package : str
        What could not be imported.
    extra : str
        The extra that installs it.

    Examples
    --------
    >>> print(MissingDependencyError("matplotlib", "plot"))
    matplotlib is not installed. Install it with: pip install "splitiot[plot]"
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed. Install it with: pip install "splitiot[{extra}]"')
        self.package = package
        self.extra = extra
